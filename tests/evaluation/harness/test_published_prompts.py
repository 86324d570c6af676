"""Checks that our tasks ask what lm-eval's tasks of the same name ask, character for character."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

# `make test-harness` has the libraries; elsewhere they may be missing.
if "DECODERY_TEST_HARNESS" not in os.environ:
    pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.tasks import TaskManager

from decodery.evaluation.contract import Continuation, Generation, Prompt
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied

TASKS = Path(lm_eval.__file__).parent / "tasks"
PAIR = {"sentence1": "Ann ran.", "sentence2": "Ann moved", "label": 1}
ARC = {
    "id": "1",
    "question": "Why?",
    "choices": {"text": ["a b", "c"], "label": ["1", "2"]},
    "answerKey": "2",
}
TRUTH = {"choices": ["Yes it is.", "No.", "Maybe."], "labels": [1, 0, 0]}
# Our task, lm-eval's file, the split that it asks about, and rows.
CASES: dict[str, tuple[str, str, str, list[dict[str, Any]]]] = {
    "arc": ("arc_easy", "arc/arc_easy.yaml", "test", [ARC]),
    "hellaswag": (
        "hellaswag",
        "hellaswag/hellaswag.yaml",
        "validation",
        [
            {
                "activity_label": "Baking bread",
                "ctx_a": "[header] How to bake [title] Mix it.",
                "ctx_b": "then he",
                "ctx": "Mix it. then he",
                "endings": ["bakes [substeps] on.", "sings [title] Loud.", "runs  away", "waits"],
                "label": "2",
            }
        ],
    ),
    "cnn": (
        "summarisation",
        "cnn_dailymail/cnn_dailymail.yaml",
        "test",
        [{"article": "A cat sat. ", "highlights": "Cat sat .", "id": "1"}],
    ),
    "wmt": (
        "translation",
        "translation/wmt16_de-en.yaml",
        "test",
        [{"translation": {"de": "Eine Katze.", "en": "A cat."}}],
    ),
    "winogrande": (
        "winogrande",
        "winogrande/default.yaml",
        "validation",
        [{"sentence": "Ann saw Bea since _ was tall.", "option1": "Ann", "option2": "Bea", "answer": "2"}],
    ),
    "mmlu": (
        "mmlu",
        "mmlu/default/mmlu_abstract_algebra.yaml",
        "test",
        [
            {
                "question": " Find it. ",
                "choices": ["0", "1", "2", "3"],
                "answer": 1,
                "subject": "abstract_algebra",
            }
        ],
    ),
    "gsm8k": ("gsm8k", "gsm8k/gsm8k.yaml", "test", [{"question": "How?", "answer": "<<1+1=2>>\n#### 2"}]),
    "mc1": (
        "truthfulqa",
        "truthfulqa/truthfulqa_mc1.yaml",
        "validation",
        [{"question": "Is it?", "mc1_targets": TRUTH, "mc2_targets": TRUTH}],
    ),
    "lambada": ("lambada", "lambada/lambada_openai.yaml", "test", [{"text": "He said the last word"}]),
    "cola": ("glue_cola", "glue/cola/default.yaml", "validation", [{"sentence": "It runs.", "label": 1}]),
    "sst2": ("glue_sst2", "glue/sst2/default.yaml", "validation", [{"sentence": "fine film ", "label": 1}]),
    "mrpc": ("glue_mrpc", "glue/mrpc/default.yaml", "validation", [PAIR]),
    "rte": ("glue_rte", "glue/rte/default.yaml", "validation", [PAIR]),
    "wnli": ("glue_wnli", "glue/wnli/default.yaml", "validation", [PAIR]),
    "qqp": (
        "glue_qqp",
        "glue/qqp/default.yaml",
        "validation",
        [{"question1": "Who?", "question2": "Whom?", "label": 0}],
    ),
    "qnli": (
        "glue_qnli",
        "glue/qnli/default.yaml",
        "validation",
        [{"question": "Who?", "sentence": "Ann did.", "label": 0}],
    ),
    "mnli": (
        "glue_mnli",
        "glue/mnli/default.yaml",
        "validation_matched",
        [{"premise": "Ann ran.", "hypothesis": "Ann moved", "label": 2}],
    ),
}
# What lm-eval's tasks need to read our splits alone.
SPLITS: dict[str, dict[str, Any]] = {
    "arc": {"validation_split": None},
    "wmt": {"validation_split": None, "fewshot_split": "train"},
}
WITHOUT_SHOTS = ("mc1", "lambada", "cnn")


def theirs(folder: Path, name: str, shots: int) -> list[str]:
    """Returns the texts, prompt and continuation, that lm-eval's task asks about the first document."""
    _, file, split, _ = CASES[name]
    files = {one: str(folder / f"{one}.jsonl") for one in (split, "train", "dev", "validation_mismatched")}
    known = {split, "train", "dev"} if name != "mnli" else set(files)
    overrides = {
        "include": str(TASKS / file),
        "task": f"local_{name}",
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {one: path for one, path in files.items() if one in known}},
        **SPLITS.get(name, {}),
    }
    (folder / f"local_{name}.yaml").write_text(json.dumps(overrides), encoding="utf-8")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = manager.load(f"local_{name}")["tasks"][f"local_{name}"]
    task.set_config("num_fewshot", shots)
    task.build_all_requests(limit=1, rank=0, world_size=1)
    asked = [instance.args for instance in task.instances]
    return [one[0] + (one[1] if isinstance(one[1], str) else "") for one in asked if one[0]]


def ours(folder: Path, name: str, shots: int) -> list[str]:
    task: Any = find_task(CASES[name][0])
    if name == "wmt":
        task = varied(task, Variant(source_language="de", target_language="en"))
    data = task.read(folder)
    document = data.documents[0]
    found = []
    for request in task.requests(document, data.pool(document)[:shots], 1):
        assert isinstance(request, (Continuation, Generation))
        prompt = request.prompt
        more = prompt.delimiter + request.text if isinstance(request, Continuation) else ""
        found.append(text_of(prompt) + more)
    return found


def text_of(prompt: Prompt) -> str:
    shots = [f"{shot.question}{prompt.delimiter}{shot.answer}{prompt.separator}" for shot in prompt.shots]
    return prompt.description + "".join(shots) + prompt.question


@pytest.mark.parametrize("shots", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_our_prompts_are_those_of_lm_eval(tmp_path: Path, name: str, shots: int) -> None:
    if shots and name in WITHOUT_SHOTS:
        pytest.skip("the data has no split for shots")
    _, _, split, rows = CASES[name]
    # lm-eval draws shots from rows that differ from the one that is asked about.
    others = [{**rows[0], "extra": 1, **({"id": "9"} if "id" in rows[0] else {})}] * 3
    for one in (split, "train", "dev", "validation_mismatched"):
        written = [{**rows[0], "extra": 0}, *others] if one == split else others
        (tmp_path / f"{one}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    assert ours(tmp_path, name, shots) == theirs(tmp_path, name, shots)
