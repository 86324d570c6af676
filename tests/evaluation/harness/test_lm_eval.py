"""Checks our model in lm-eval against lm-eval's own model over transformers, on local tasks."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, ParameterError
from tests.evaluation.harness.tiny_models import END, sentence, write_gpt2, write_llama

# `make test-harness` has the libraries; elsewhere they may be missing.
if "DECODERY_TEST_HARNESS" not in os.environ:
    pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from decodery.evaluation.harness.lm_eval import HarnessSettings, evaluate, harness_model, tables

CHOICES = """
task: local_choices
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{gold}}}}"
doc_to_choice: "{{{{options}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
TEXTS = """
task: local_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n", "{stop}"], max_gen_toks: 12, do_sample: false}}
metric_list:
  - metric: exact_match
"""
WHOLE = """
task: local_whole
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/whole.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""


@dataclass
class Both:
    """Holds one model in both forms, and a folder with tasks."""

    ours: LLM
    theirs: Any
    tasks: Path


def write_tasks(folder: Path, llm: LLM) -> Path:
    rng = random.Random(1)

    def choice(number: int) -> dict[str, Any]:
        options = [sentence(rng, rng.randint(1, 4)) for _ in range(rng.choice((3, 4)))]
        return {"question": f"{number} {sentence(rng, 6)}", "options": options, "gold": rng.randrange(3)}

    write_lines(folder / "train.jsonl", [choice(number) for number in range(10)])
    write_lines(folder / "test.jsonl", [choice(number) for number in range(10, 34)])
    questions = [f"{number} {sentence(rng, 5)}" for number in range(12)]
    params = harness_params(llm)
    written = [output.completions[0].text for output in llm.generate(questions, params, progress=False)]
    golds = [text if number % 3 else "none" for number, text in enumerate(written)]
    pairs = zip(questions, golds, strict=True)
    write_lines(folder / "texts.jsonl", [{"question": q, "answer": a} for q, a in pairs])
    # The last text has more tokens than two contexts.
    whole = [{"text": sentence(rng, words)} for words in (1, 12, 30, 200)]
    write_lines(folder / "whole.jsonl", whole)
    for name, text in (("choices", CHOICES), ("texts", TEXTS), ("whole", WHOLE)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder, stop="rock"))
    return folder


def harness_params(llm: LLM) -> Any:
    from decodery import GenerationParams

    return GenerationParams(max_tokens=12, temperature=0, stop=("\n", "rock"))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module", params=[write_llama, write_gpt2], ids=["llama", "gpt2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = request.param(tmp_path_factory.mktemp("tiny"))
    ours = LLM(folder, dtype="float32", backend="torch", kv_memory="64MB")
    theirs = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=4, max_length=96)
    return Both(ours, theirs, write_tasks(tmp_path_factory.mktemp("tasks"), ours))


def measured(model: Any, both: Both, task: str, **options: Any) -> dict[str, Any]:
    found = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(both.tasks), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    assert found is not None
    return found


def numbers(results: dict[str, Any], task: str) -> dict[str, float]:
    return {name: value for name, value in results["results"][task].items() if isinstance(value, float)}


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("chat", [False, True])
def test_choices_have_lm_evals_own_accuracies_and_log_probabilities(
    both: Both, shots: int, chat: bool
) -> None:
    options = {"num_fewshot": shots, "apply_chat_template": chat, "fewshot_as_multiturn": chat}
    theirs = measured(both.theirs, both, "local_choices", **options)
    ours = measured(harness_model(both.ours), both, "local_choices", **options)
    found, expected = numbers(ours, "local_choices"), numbers(theirs, "local_choices")
    assert {"acc,none", "acc_norm,none"} <= found.keys()
    assert found == expected
    assert 0 < found["acc,none"] < 1
    for one, other in zip(ours["samples"]["local_choices"], theirs["samples"]["local_choices"], strict=True):
        assert one["arguments"] == other["arguments"]
        pairs = zip(one["filtered_resps"], other["filtered_resps"], strict=True)
        for (logprob, greedy), (right, as_greedy) in pairs:
            assert float(logprob) == pytest.approx(float(right), abs=2e-4)
            assert greedy == as_greedy


@pytest.mark.parametrize("chat", [False, True])
def test_texts_are_those_of_lm_evals_own_model(both: Both, chat: bool) -> None:
    theirs = measured(both.theirs, both, "local_texts", apply_chat_template=chat)
    ours = measured(harness_model(both.ours), both, "local_texts", apply_chat_template=chat)
    assert numbers(ours, "local_texts") == numbers(theirs, "local_texts")
    for one, other in zip(ours["samples"]["local_texts"], theirs["samples"]["local_texts"], strict=True):
        assert one["resps"] == other["resps"]
    if not chat:
        assert ours["results"]["local_texts"]["exact_match,none"] == pytest.approx(8 / 12)


def test_perplexities_are_lm_evals_own_also_of_texts_longer_than_the_context(both: Both) -> None:
    # lm-eval's own model scores the token of the beginning too, unless it is told not to add it.
    both.theirs.add_bos_token = False
    theirs = measured(both.theirs, both, "local_whole")
    both.theirs.add_bos_token = None
    ours = measured(harness_model(both.ours), both, "local_whole")
    found = numbers(ours, "local_whole")
    assert found == pytest.approx(numbers(theirs, "local_whole"), rel=1e-4)
    assert {"word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"} <= found.keys()


def instances(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, one, 0, ("local", place, 1)) for place, one in enumerate(arguments)]


def test_edges_of_context_and_continuation_are_lm_evals_own(both: Both) -> None:
    long = sentence(random.Random(2), 150)
    asked = instances(
        "loglikelihood",
        ("", "the sun"),
        ("", f"{END}the sun"),
        ("the sun \n", "is"),
        ("the sun", " is"),
        (f"the sun{END}", "is not"),
        (long, " the moon"),
        ("the", sentence(random.Random(3), 20)),
    )
    ours = harness_model(both.ours).loglikelihood(asked)
    theirs = both.theirs.loglikelihood(asked, disable_tqdm=True)
    for (logprob, greedy), (right, as_greedy) in zip(ours, theirs, strict=True):
        assert logprob == pytest.approx(right, abs=2e-4)
        assert greedy == as_greedy


def test_a_repeated_request_that_samples_has_different_texts_the_same_at_each_call(both: Both) -> None:
    arguments = ("the sun", {"do_sample": True, "temperature": 1.0, "max_gen_toks": 20, "until": []})
    one, other = instances("generate_until", arguments, arguments)
    model = harness_model(both.ours, seed=5)
    found = model.generate_until([one] * 4 + [other] * 4)
    assert len(set(found)) == 8
    assert model.generate_until([one] * 4 + [other] * 4) == found
    # Neither order nor what is asked beside it changes a text.
    assert model.generate_until([other] * 2) == found[4:6]
    assert harness_model(both.ours, seed=6).generate_until([one] * 4) != found[:4]


def test_results_are_kept_one_by_one_under_lm_evals_own_keys(both: Both) -> None:
    model = harness_model(both.ours)
    kept: list[tuple[str, Any, Any]] = []

    class Hook:
        def add_partial(self, method: str, arguments: Any, result: Any) -> None:
            kept.append((method, arguments, result))

    model.set_cache_hook(Hook())
    scored = instances("loglikelihood", ("the sun", " is"), ("the moon", " is"))
    written = instances("generate_until", ("the sun", {"until": "\n", "max_gen_toks": 3}))
    whole = instances("loglikelihood_rolling", ("the sun is",), ("",))
    results = [
        *zip(scored, model.loglikelihood(scored), strict=True),
        *zip(written, model.generate_until(written), strict=True),
        *zip(whole, model.loglikelihood_rolling(whole), strict=True),
    ]
    expected = [(one.request_type, one.args, result) for one, result in results]
    assert sorted(map(str, kept)) == sorted(map(str, expected))


def test_what_cannot_run_is_an_error_that_names_the_document(both: Both) -> None:
    model = harness_model(both.ours)
    long = " " + sentence(random.Random(4), 150)
    with pytest.raises(ParameterError, match=r"task local, document 1: the continuation has .* tokens"):
        model.loglikelihood(instances("loglikelihood", ("the", " sun"), ("the", long)))
    with pytest.raises(ParameterError, match=r"task local, document 0: .*no_such"):
        model.generate_until(instances("generate_until", ("the", {"no_such": 1})))
    with pytest.raises(ParameterError, match="lm-eval has no task missing"):
        evaluate(HarnessSettings(("missing",)), both.ours)


def test_evaluate_returns_lm_evals_results_with_the_identity_of_the_model(both: Both) -> None:
    settings = HarnessSettings(
        ("local_choices",), include_path=str(both.tasks), num_fewshot=2, limit=6, bootstrap_iters=0
    )
    found = evaluate(settings, both.ours, name="tiny")
    assert found["n-samples"]["local_choices"]["effective"] == 6
    assert found["config"]["model_name"] == "tiny"
    assert len(found["config"]["files"]) == 64
    assert "local_choices" in tables(found)
    assert "acc_norm" in tables(found)
