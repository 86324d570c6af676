from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery.decoding.processors.pipeline import process
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.errors import ParameterError
from tests.decoding.processors.tables import CUT, Case, check, logs
from tests.decoding.rows import make_row


def _plus_one(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    return logits + 1


def _bans_last(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    logits[tokens[-1]] = CUT
    return logits


TABLE = [
    Case({}, [1, 2, 3], [1, 2, 3]),
    Case({"temperature": 2.0}, [1, -2, 3], [0.5, -1, 1.5]),
    # Dynamic temperature: equal logits have the largest entropy, a single token has none.
    Case({"dynatemp_range": 0.5}, [3, 3, CUT], [2, 2, CUT]),
    Case({"dynatemp_range": 0.5}, [3, CUT, CUT], [3, CUT, CUT]),
    # 0.5, 0.25, 0.125, 0.125: 1.75 of 2 bits, so 0.5 + (0.875)^2.
    Case(
        {"dynatemp_range": 0.5, "dynatemp_exponent": 2.0},
        logs(4, 2, 1, 1),
        [x / (0.5 + 0.875**2) for x in logs(4, 2, 1, 1)],
    ),
    Case({"repetition_penalty": 2.0}, [4, 1, -3, 1], [2, 1, -6, 1], [0, 0], [2]),
    Case({"repetition_penalty": 2.0, "penalize_prompt": False}, [4, 1, -3], [4, 1, -6], [0, 0], [2]),
    Case({"repetition_penalty": 2.0, "penalty_range": 2}, [4, 4, 4], [4, 2, 2], [0, 1], [2]),
    Case(
        {"repetition_penalty": 2.0, "penalty_range": 2, "penalize_prompt": False},
        [4, 4, 4],
        [4, 4, 2],
        [0, 1],
        [2],
    ),
    Case({"repetition_penalty": 2.0, "penalize_prompt": False}, [4, 4], [4, 4], [0, 1]),
    Case({"encoder_repetition_penalty": 2.0}, [4, 1, -3, 1], [8, 1, -1.5, 1], [0, 2, 2], [3]),
    Case({"presence_penalty": 0.5}, [1, 1, 1], [1, 0.5, 1], [0], [1, 1]),
    Case({"frequency_penalty": 0.5}, [1, 1, 1], [1, 0, 0.5], [0], [1, 1, 2]),
    Case({"presence_penalty": 1.0, "frequency_penalty": -0.5}, [0, 0, 0], [0, 0.5, 0], [0], [1, 1, 1]),
    Case({"presence_penalty": 1.0}, [1, 1, 1], [1, 1, 1], [0, 1, 2]),
    Case({"frequency_penalty": 1.0, "penalty_range": 2}, [1, 1, 1], [1, 0, 0], [0], [1, 1, 2]),
    Case({"logit_bias": {1: 2.5, 2: CUT}}, [1, 1, 1], [1, 3.5, CUT]),
    # The bias comes after the penalty.
    Case({"logit_bias": {1: -3.0}, "repetition_penalty": 2.0}, [1, 1, 1], [1, -2.5, 1], [1]),
    Case(
        {"sequence_bias": {(2,): 1.0, (0, 1, 2): 2.0, (1, 1): 4.0, (5, 0, 1, 2): 8.0}},
        [0, 0, 0],
        [0, 4, 3],
        [0],
        [1],
    ),
    Case({"sequence_bias": {(0, 1): CUT}}, [1, 1], [1, CUT], [0]),
    Case({"min_tokens": 2}, [1, 1, 1], [1, 1, CUT], [0], [1], [2]),
    Case({"min_tokens": 2}, [1, 1, 1], [1, 1, 1], [0], [1, 1], [2]),
    Case({"min_tokens": 2}, [1, 1, 1], [CUT, CUT, 1], [0, 1, 1], [], [0, 1]),
    Case({"min_tokens": 2}, [1, 1, 1], [1, 1, 1], [0]),
    Case({"min_length": 3}, [1, 1, 1], [1, 1, CUT], [0, 1], [], [2]),
    Case({"min_length": 3}, [1, 1, 1], [1, 1, 1], [0, 1], [1], [2]),
    # 0 1 was followed by 2 and by 3.
    Case({"no_repeat_ngram_size": 3}, [1, 1, 1, 1], [1, 1, CUT, CUT], [0, 1, 2, 0, 1], [3, 0, 1]),
    Case({"no_repeat_ngram_size": 1}, [1, 1, 1], [CUT, 1, CUT], [0], [2]),
    Case({"no_repeat_ngram_size": 3}, [1, 1, 1], [1, 1, 1], [0]),
    Case({"no_repeat_ngram_size": 2}, [1, 1, 1], [1, CUT, 1], [1, 1]),
    Case({"encoder_no_repeat_ngram_size": 2}, [1, 1, 1, 1], [1, CUT, 1, 1], [0, 1], [0, 2, 0]),
    Case({"encoder_no_repeat_ngram_size": 1}, [1, 1, 1], [CUT, CUT, 1], [0, 1], [2]),
    Case({"bad_words": [[1], [0, 2], [1, 0], [3, 2, 0]]}, [1, 1, 1], [1, CUT, 1], [0], [2]),
    Case({"bad_words": [[1], [0, 2], [2, 0], [0, 2, 2]]}, [1, 1, 1], [CUT, CUT, CUT], [0], [2]),
    Case({"forced_bos_token_id": 1}, [1, 2, 3], [CUT, 0, CUT], [0, 1]),
    Case({"forced_bos_token_id": 1}, [1, 2, 3], [1, 2, 3], [0, 1], [1]),
    Case({"forced_eos_token_id": 1, "max_tokens": 2}, [1, 2, 3], [CUT, 0, CUT], [0], [2]),
    Case({"forced_eos_token_id": 1, "max_tokens": 3}, [1, 2, 3], [1, 2, 3], [0], [2]),
    # Two tokens after the start: |x| (3^2 - 1) is added.
    Case({"exponential_decay_length_penalty": (1, 3.0)}, [1, -2, 3], [1, 14, 27], [0], [0, 0, 0], [1, 2]),
    Case({"exponential_decay_length_penalty": (1, 3.0)}, [1, -2, 3], [1, -2, 3], [0], [0], [1, 2]),
    Case({"exponential_decay_length_penalty": (0, 2.0)}, [1, CUT], [1, CUT], [0], [0], [1]),
    Case({"suppress_tokens": [0, 2]}, [1, 2, 3], [CUT, 2, CUT], [0], [1]),
    Case({"begin_suppress_tokens": [0, 2]}, [1, 2, 3], [CUT, 2, CUT], [0]),
    Case({"begin_suppress_tokens": [0, 2]}, [1, 2, 3], [1, 2, 3], [0], [1]),
    # The text begins after the forced token.
    Case({"begin_suppress_tokens": [0], "forced_bos_token_id": 1}, [1, 2, 3], [CUT, 2, 3], [0], [1]),
    Case({"begin_suppress_tokens": [0], "forced_bos_token_id": 1}, [1, 2, 3], [CUT, 0, CUT], [0]),
    Case({"allowed_token_ids": [2, 0]}, [1, 2, 3], [1, CUT, 3]),
    Case({"logits_processors": [_plus_one]}, [1, 2, 3], [2, 3, 4]),
    Case({"logits_processors": [_plus_one, _bans_last]}, [1, 2, 3], [2, CUT, 4], [0], [1]),
    Case({"renormalize_logits": True}, [0, 0, CUT], [-math.log(2), -math.log(2), CUT]),
    Case({"renormalize_logits": True, "top_k": 1, "temperature": 0.5}, [1, 2, CUT], [CUT, 0, CUT]),
    # Bans and penalties apply to greedy rows too.
    Case({"temperature": 0.0, "suppress_tokens": [2], "repetition_penalty": 2.0}, [4, 1, 3], [2, 1, CUT]),
]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_processed_logits_are_as_worked_by_hand(case: Case) -> None:
    check(case)


def _order(*first: str) -> tuple[str, ...]:
    return (*first, *(name for name in DEFAULT_ORDER if name not in first))


REORDERED = [
    # The bias is added after halving.
    Case({"temperature": 2.0, "logit_bias": {0: 1.0}}, [4, 1], [3, 0.5]),
    # Top-k keeps the likeliest token, whose ban then leaves none.
    Case({"top_k": 1, "suppress_tokens": [0]}, [4, 1], [CUT, CUT]),
    # Of 0.4, 0.3, 0.2, 0.1 two reach a half; of the two likeliest alone the first would.
    Case({"top_p": 0.5, "top_k": 2}, logs(4, 3, 2, 1), [*logs(4, 3), CUT, CUT]),
    Case({"logits_processors": [_plus_one], "temperature": 2.0}, [4, 1], [3, 1.5]),
    Case({"repetition_penalty": 2.0, "logit_bias": {0: -4.0}}, [4, 1], [0, 1]),
    Case({"renormalize_logits": True, "suppress_tokens": [0]}, [0, 0], [CUT, -math.log(2)]),
]


@pytest.mark.parametrize("case", REORDERED, ids=str)
def test_another_order_gives_another_result(case: Case) -> None:
    order = _order("renormalize", "temperature", "top_p", "top_k", "logit_bias", "repetition_penalty")
    params = {**case.params, "processor_order": order}
    check(replace(case, params=params))
    with pytest.raises(AssertionError, match="not close"):
        check(case)


def test_the_default_order_given_by_name_is_the_default() -> None:
    params: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "repetition_penalty": 1.5}
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    default = process(logits, [make_row([1, 2], **params)])
    named = process(logits, [make_row([1, 2], processor_order=_order(), **params)])
    assert torch.equal(default, named)


def _list(tokens: list[int], logits: torch.Tensor) -> Any:
    return logits.tolist()


def _short(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    return logits[1:]


def _whole(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    return logits.long()


def _undefined(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    return logits * torch.nan


def _broken(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_list, r"_list returned list; return a tensor of logits"),
        (_short, r"_short returned torch.float32 \[2\]; return .* of shape \[3\]"),
        (_whole, r"_whole returned torch.int64 \[3\]; return floating-point logits"),
        (_undefined, r"_undefined returned logits that are not numbers"),
        (_broken, r"_broken failed: KeyError\('x'\)"),
    ],
)
def test_a_users_function_that_fails_is_one_clear_error(function: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=f"^logits_processors: {message}"):
        process(torch.zeros(1, 3), [make_row(logits_processors=[function])])


def test_a_users_function_sees_all_tokens_of_its_row_only() -> None:
    seen: list[Any] = []

    def look(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
        seen.append((tokens, logits.tolist()))
        return logits.double()

    rows = [
        make_row([1, 2], [3], logits_processors=[look]),
        make_row([4]),
        make_row([5], logits_processors=[look]),
    ]
    logits = torch.arange(6.0).view(3, 2)
    result = process(logits, rows)
    assert seen == [([1, 2, 3], [0.0, 1.0]), ([5], [4.0, 5.0])]
    assert result.dtype == torch.float32
    assert torch.equal(result, logits)


def test_growth_of_the_end_tokens_stays_within_float32() -> None:
    row = make_row([0], [1] * 500, end_ids=[1], exponential_decay_length_penalty=(0, 1e6))
    result = process(torch.tensor([[3.0, -20.0]]), [row])
    assert math.isfinite(float(result[0, 1]))
    assert result[0, 1] > 1e30
