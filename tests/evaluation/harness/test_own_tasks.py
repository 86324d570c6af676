"""Checks that our tasks and lm-eval's own, on the same files, give the same numbers."""

from __future__ import annotations

import importlib
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.evaluation import run
from tests.evaluation.harness.tiny_models import sentence, write_llama
from tests.evaluation.vectors.fake_encoder import write_lines

# `make test-harness` has the library; elsewhere it may be missing.
if "DECODERY_TEST_HARNESS" not in os.environ:
    pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from decodery.evaluation.harness.lm_eval import harness_model

CHOICES = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_target: "{target}"
doc_to_choice: "{choices}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
WHOLE = """
task: whole
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: byte_perplexity
  - metric: bits_per_byte
"""


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(write_llama(tmp_path_factory.mktemp("tiny")), kv_memory="64MB")


def lm_evals(llm: LLM, folder: Path, task: str) -> dict[str, float]:
    found = simple_evaluate(
        model=harness_model(llm),
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=10,
        num_fewshot=0,
    )
    assert found is not None
    return {name.partition(",")[0]: value for name, value in found["results"][task].items()}


def test_arc_has_lm_evals_accuracies(llm: LLM, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(40):
        count = rng.choice((3, 4, 5))
        labels = list("ABCDE" if number % 2 else "12345")[:count]
        choices = {"text": [sentence(rng, rng.randint(1, 5)) for _ in range(count)], "label": labels}
        question = f"{sentence(rng, 6)}?"
        rows.append(
            {"id": str(number), "question": question, "choices": choices, "answerKey": rng.choice(labels)}
        )
    file = write_lines(tmp_path / "data" / "test.jsonl", rows)
    text = CHOICES.format(
        task="local_arc",
        file=file,
        text="Question: {{question}}\\nAnswer:",
        target="{{choices.label.index(answerKey)}}",
        choices="{{choices.text}}",
    )
    (tmp_path / "arc.yaml").write_text(text)
    check(llm, tmp_path, "arc", "local_arc", file.parent)


def test_hellaswag_has_lm_evals_accuracies(llm: LLM, tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [
        {
            "activity_label": sentence(rng, 2).capitalize(),
            "ctx_a": f"[header] {sentence(rng, 5)} [title] {sentence(rng, 3)}.",
            "ctx_b": sentence(rng, 2) if number % 3 else "",
            "endings": [f"{sentence(rng, rng.randint(2, 6))} [step] the." for _ in range(4)],
            "label": str(rng.randrange(4)),
        }
        for number in range(40)
    ]
    data = write_lines(tmp_path / "data" / "hellaswag_val.jsonl", rows).parent
    # lm-eval's own function makes the question and the choices of a row.
    made: list[Any] = []

    class Rows:
        def map(self, function: Any) -> None:
            made.extend({**row, **function(row)} for row in rows)

    importlib.import_module("lm_eval.tasks.hellaswag.utils").process_docs(Rows())
    file = write_lines(tmp_path / "made.jsonl", made)
    text = CHOICES.format(
        task="local_hellaswag", file=file, text="{{query}}", target="{{label}}", choices="choices"
    )
    (tmp_path / "hellaswag.yaml").write_text(text)
    check(llm, tmp_path, "hellaswag", "local_hellaswag", data)


def check(llm: LLM, folder: Path, own: str, theirs: str, data: Path) -> None:
    expected = lm_evals(llm, folder, theirs)
    found = run(own, llm, data=data, shots=0).results
    for name in ("acc", "acc_norm"):
        assert found[name].value == pytest.approx(expected[name])
        assert found[name].error == pytest.approx(expected[f"{name}_stderr"])
    assert 0 < expected["acc"] < 1


def test_perplexity_of_whole_texts_has_lm_evals_bits(llm: LLM, tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [{"text": sentence(rng, words)} for words in (2, 9, 20)]
    file = write_lines(tmp_path / "data" / "test.jsonl", rows)
    (tmp_path / "whole.yaml").write_text(WHOLE.format(file=file))
    expected = lm_evals(llm, tmp_path, "whole")
    found = run("perplexity", llm, data=file.parent).results
    assert found["bits_per_byte"].value == pytest.approx(expected["bits_per_byte"])
    assert 2 ** expected["bits_per_byte"] == pytest.approx(expected["byte_perplexity"])
    assert math.isfinite(expected["byte_perplexity"])
