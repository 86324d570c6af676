"""Checks that on torch a request's results depend on its batch by rounding errors and near ties alone.

torch may sum a row in another order when the number of rows changes. So log-probabilities differ in their
last bits, and where two tokens are almost equally likely, the other one may be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from decodery import LLM, GenerationParams, PromptLookup
from decodery.decoding.chosen import TokenLogprobs
from decodery.outputs import RequestOutput
from decodery.weights.sources.locate import resolve
from tests.cli.conftest import write_model

PARAMS = GenerationParams(max_tokens=40, temperature=0, logprobs=3, prompt_logprobs=0, ignore_eos=True)
PROMPTS = ["Once upon a time", "x", "abc abd " * 9, "The capital of France is", "abc abd " * 8 + "y"]
# The largest logits of the models are at least so large, and less than twice as large.
TINY, DEFAULT = 2, 16


@dataclass(frozen=True)
class Results:
    """Holds the log-probabilities of a request's prompt and of its greedy tokens."""

    prompt: Sequence[TokenLogprobs | None]
    tokens: Sequence[TokenLogprobs]


def results_of(output: RequestOutput) -> Results:
    logprobs = output.completions[0].logprobs
    assert logprobs is not None
    return Results(output.prompt_logprobs or [], logprobs)


def check(found: Sequence[Results], expected: Sequence[Results], dtype: str, size: int = TINY) -> None:
    """Raises `AssertionError` unless log-probabilities are near and tokens equal but for near ties.

    In bfloat16 the numbers from `size` to its double are `size * eps` apart. Four such steps may lie between
    two results, each of which was rounded after every layer. In float32 the sums over up to 1,536 terms
    matter, whose order changes a logit by up to 1e-5 of its size.
    """
    near = size * (1e-5 if dtype == "float32" else 4 * torch.finfo(torch.bfloat16).eps)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one.prompt, other.prompt, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or abs(a.logprob - b.logprob) <= near
        for a, b in zip(one.tokens, other.tokens, strict=True):
            # The token that was chosen here was there at most the error of two log-probabilities less likely.
            likely = dict(b.top)
            assert likely[b.token] - likely[a.token] <= 2 * near
            assert abs(a.logprob - likely[a.token]) <= near
            if a.token != b.token:
                break  # From here on the texts differ.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def options(request: pytest.FixtureRequest, folder: str) -> dict[str, Any]:
    return {"model": folder, "dtype": request.param, "backend": "torch", "kv_memory": "64MB"}


@pytest.fixture(scope="module")
def alone(options: dict[str, Any]) -> list[Results]:
    llm = LLM(**options, prefix_cache=False)
    return [results_of(llm.generate(prompt, PARAMS)[0]) for prompt in PROMPTS]


def together(llm: LLM, params: GenerationParams = PARAMS) -> list[Results]:
    return [results_of(output) for output in llm.generate(PROMPTS, params, progress=False)]


def test_together_is_near_alone(options: dict[str, Any], alone: list[Results]) -> None:
    llm = LLM(**options)
    check(together(llm), alone, options["dtype"])
    # Without log-probabilities of the prompt, the second time finds it in the prefix cache.
    cached = together(llm, PARAMS.replace(prompt_logprobs=None))
    check(cached, [Results([], one.tokens) for one in alone], options["dtype"])


def test_small_steps_and_preemption_are_near_alone(options: dict[str, Any], alone: list[Results]) -> None:
    page = LLM(**options).engine.limits.page_bytes
    for prefix_cache in (True, False):
        scarce = LLM(**options | {"kv_memory": 9 * page}, token_budget=16, prefix_cache=prefix_cache)
        check(together(scarce), alone, options["dtype"])
        assert scarce.engine.preemptions > 0


def test_speculated_is_near_plain(options: dict[str, Any], alone: list[Results]) -> None:
    check(together(LLM(**options), PARAMS.replace(speculate=PromptLookup())), alone, options["dtype"])


def test_the_streams_of_a_fork_are_near_one_alone(options: dict[str, Any], alone: list[Results]) -> None:
    llm = LLM(**options)
    for prompt, expected in zip(PROMPTS, alone, strict=True):
        for completion in llm.generate(prompt, PARAMS.replace(n=3))[0].completions:
            assert completion.logprobs is not None
            check([Results([], completion.logprobs)], [Results([], expected.tokens)], options["dtype"])


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_the_default_model_together_is_near_alone(default_llm: LLM, dtype: str) -> None:
    llm = default_llm if dtype == "float32" else LLM(resolve(None), dtype=dtype, backend="torch")
    params = PARAMS.replace(max_tokens=6)
    alone = [results_of(llm.generate(prompt, params)[0]) for prompt in PROMPTS]
    check(together(llm, params), alone, dtype, DEFAULT)
