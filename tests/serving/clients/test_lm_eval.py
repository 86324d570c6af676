"""Checks the server with lm-eval's local-completions and its remote tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from decodery import LLM, GenerationParams

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.utils import check_remote_tokenizer_support

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " London and not Paris"),
    ("2 + 2 =", " 4"),
    ("Once upon a time", ", there was a little girl."),
    ("Naïve 😀 text", " and é more"),
]


@pytest.fixture(scope="module")
def model(url: str) -> LocalCompletionsAPI:
    return LocalCompletionsAPI(
        base_url=f"{url}/v1/completions",
        model="default",
        tokenizer_backend="auto",
        batch_size=2,
        max_length=2048,
    )


def instances(kind: str, arguments: list[Any]) -> list[Instance]:
    return [Instance(kind, {}, one, place) for place, one in enumerate(arguments)]


def test_the_remote_tokenizer_is_found(url: str, model: LocalCompletionsAPI, llm: LLM) -> None:
    assert check_remote_tokenizer_support(f"{url}/v1/completions")
    assert model.tokenizer_backend == "remote"
    for text in ("Hello", " a b", "naïve 😀"):
        assert model.tok_encode(text) == llm.tokenizer.encode(text, add_special_tokens=False)
    assert model.eot_token_id in llm.tokenizer.eos_token_ids


def test_likelihoods_are_the_librarys(model: LocalCompletionsAPI, llm: LLM) -> None:
    found = model.loglikelihood(instances("loglikelihood", PAIRS))
    for (context, text), (logprob, greedy) in zip(PAIRS, found, strict=True):
        head = llm.tokenizer.encode(context, add_special_tokens=False)
        whole = llm.tokenizer.encode(context + text, add_special_tokens=False)
        (scored,) = llm.score([whole])
        expected = sum(p for p in scored.logprobs[len(head) :] if p is not None)
        assert logprob == pytest.approx(expected, abs=1e-6)
        count = len(whole) - len(head)
        (output,) = llm.generate([whole[: len(head)]], GenerationParams(max_tokens=count, temperature=0))
        assert greedy == (output.completions[0].token_ids == whole[len(head) :])


def test_rolling_likelihoods_and_texts(model: LocalCompletionsAPI, llm: LLM) -> None:
    (rolling,) = model.loglikelihood_rolling(instances("loglikelihood_rolling", [("Once upon a time.",)]))
    assert rolling < 0
    asked = [("The capital of France is", {"until": ["."], "max_gen_toks": 12, "temperature": 0})]
    (text,) = model.generate_until(instances("generate_until", asked))
    params = GenerationParams(max_tokens=12, temperature=0, stop=(".",))
    assert text == llm.generate("The capital of France is", params)[0].completions[0].text
