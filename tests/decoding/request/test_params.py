from __future__ import annotations

import math
from typing import Any

import pytest

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError

NAN, INF = math.nan, math.inf

BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("min_tokens", -1),
    ("min_tokens", 257),
    ("temperature", -0.1),
    ("temperature", NAN),
    ("temperature", INF),
    ("temperature", "hot"),
    ("temperature", 1e-40),
    ("temperature", 10**400),
    ("top_p", 10**400),
    ("presence_penalty", -1e30),
    ("logit_bias", {1: 10**400}),
    ("top_k", -1),
    ("top_k", 2.0),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_p", NAN),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1.0),
    ("presence_penalty", NAN),
    ("frequency_penalty", INF),
    ("logit_bias", {1: NAN}),
    ("logit_bias", {1: INF}),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {"x": 1.0}),
    ("logit_bias", {1: "much"}),
    ("logit_bias", ((1, 1.0), (1, 2.0))),
    ("logit_bias", 3),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", [1]),
    ("stop", 7),
    ("stop", b"x"),
    ("stop_token_ids", "12"),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [1.0]),
    ("ignore_eos", 1),
    ("skip_special_tokens", None),
    ("include_stop", "yes"),
    ("n", 0),
    ("n", None),
    ("seed", 1.0),
    ("seed", 2**64),
    ("logprobs", -1),
    ("prompt_logprobs", 1.5),
    ("strategy", "beam"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=repr)
def test_a_bad_value_is_an_error_of_one_line_that_names_its_field(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name) as error:
        GenerationParams(**{name: value})
    assert "\n" not in str(error.value)


def test_lists_and_mappings_become_one_canonical_immutable_form() -> None:
    params = GenerationParams(stop="x", stop_token_ids=[3, 4], logit_bias={"7": 1, 2: -INF})  # type: ignore[arg-type]
    assert params.stop == ("x",)
    assert params.stop_token_ids == (3, 4)
    assert params.logit_bias == ((2, -INF), (7, 1.0))
    assert params == params.replace()
    assert hash(params) == hash(params.replace())


def test_replace_validates_and_refuses_unknown_names() -> None:
    with pytest.raises(ParameterError, match="top_p"):
        GenerationParams().replace(top_p=2)
    with pytest.raises(ParameterError, match="topp"):
        GenerationParams().replace(topp=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_bias", {10: 1.0}),
        ("stop_token_ids", [10]),
        ("top_k", 11),
        ("logprobs", 11),
        ("prompt_logprobs", 11),
    ],
)
def test_a_value_that_exceeds_the_vocabulary_is_an_error_that_names_its_field(name: str, value: Any) -> None:
    params = GenerationParams(**{name: value})
    params.check_vocabulary(11)
    with pytest.raises(ParameterError, match=name):
        params.check_vocabulary(10)
