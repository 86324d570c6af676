"""Checks the default model on the native backend: its error, and its independence of the batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from decodery.kernels.native import library
from tests.kernels.native.fixtures import built

pytestmark = built

TEXT = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")[600:2600]


@pytest.fixture(scope="module")
def native_llm(default_llm: Any) -> Any:
    return LLM(backend="native", kv_memory="256MB", token_budget=48)


def perplexity(llm: LLM, ids: list[int]) -> float:
    (score,) = llm.score([ids])
    found = [x for x in score.logprobs if x is not None]
    return math.exp(-sum(found) / len(found))


def test_its_perplexity_is_that_of_the_reference(default_llm: LLM, native_llm: LLM) -> None:
    # Activations in int8 cost 0.3% over thousands of tokens; over a few hundred, noise adds as much.
    ids = default_llm.tokenizer.encode(TEXT)
    assert perplexity(native_llm, ids) == pytest.approx(perplexity(default_llm, ids), rel=0.01)


def test_a_request_has_the_same_text_and_probabilities_alone_and_in_company(native_llm: LLM) -> None:
    words = TEXT.split()
    prompts = [" ".join(words[i : i + n]) for i, n in ((0, 3), (5, 60), (80, 1), (40, 20), (100, 35))]
    params = [GenerationParams(max_tokens=8 + i, temperature=i / 2, seed=i, logprobs=2) for i in range(5)]
    together = native_llm.generate(prompts, params)
    library.set_threads(1)
    alone = [native_llm.generate(p, q)[0] for p, q in zip(prompts, params, strict=True)]
    library.set_threads(2)
    for one, other in zip(alone, together, strict=True):
        assert one.completions[0].token_ids == other.completions[0].token_ids
        assert one.completions[0].logprobs == other.completions[0].logprobs


def test_a_long_prompt_reads_the_same_when_its_step_is_replayed() -> None:
    llm = LLM(backend="native", kv_memory="64MB", prefix_cache=False)
    ids = llm.tokenizer.encode(TEXT)
    params = GenerationParams(max_tokens=3, temperature=0, logprobs=1)
    parts = [ids[i : i + 100] for i in (0, 100, 200, 0, 200, 100)]
    # The first step runs uncaptured, the second is captured, all others are replayed.
    first, second, third, *again = [llm.generate(part, params)[0].completions[0] for part in parts]
    assert [c.logprobs for c in again] == [first.logprobs, third.logprobs, second.logprobs]


def test_a_prompt_reads_the_same_in_a_step_that_was_captured_for_a_longer_one() -> None:
    params = GenerationParams(max_tokens=3, temperature=0, logprobs=1)
    settings = {"backend": "native", "kv_memory": "64MB", "prefix_cache": False}
    fresh, used = LLM(**settings), LLM(**settings)
    ids = fresh.tokenizer.encode(TEXT)
    for length in (30, 80, 80):
        used.generate(ids[:length], params)
    captured = set(used.engine._runner._steps._steps)
    for length in (28, 79, 75):
        expected, found = (llm.generate(ids[100 : 100 + length], params)[0] for llm in (fresh, used))
        assert found.completions[0].logprobs == expected.completions[0].logprobs
    assert set(used.engine._runner._steps._steps) == captured
