from __future__ import annotations

import dataclasses
import json
import math
from array import array
from typing import Any

import numpy as np
import pytest
import torch

from decodery import BeamSearch, ContrastiveSearch, DoLa, PromptLookup, StochasticBeamSearch, Watermark
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import FUNCTIONS, params_from_plain, params_to_plain
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
    ("top_k", -2),
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
    ("skip_special_tokens", 0),
    ("include_stop", "yes"),
    ("n", 0),
    ("n", "2"),
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


NONE_IS_A_VALUE = {"max_tokens", "speculate"}


@pytest.mark.parametrize("field", dataclasses.fields(GenerationParams), ids=lambda field: field.name)
def test_none_means_that_a_field_is_not_set(field: dataclasses.Field[Any]) -> None:
    if field.name in NONE_IS_A_VALUE:
        assert getattr(GenerationParams(**{field.name: None}), field.name) is None
        return
    assert GenerationParams(**{field.name: None}) == GenerationParams()
    assert params_from_plain({field.name: None} if field.name not in FUNCTIONS else {}) == GenerationParams()


def test_minus_one_means_not_set_where_clients_of_vllm_say_so() -> None:
    assert GenerationParams(top_k=-1, seed=-1) == GenerationParams()
    assert params_from_plain({"top_k": -1, "seed": -1}) == GenerationParams()
    assert GenerationParams(seed=-2).seed == -2


@pytest.mark.parametrize(
    "kind", [BeamSearch, ContrastiveSearch, DoLa, StochasticBeamSearch, Watermark, PromptLookup]
)
def test_none_means_not_set_in_strategies_and_other_objects_too(kind: type) -> None:
    assert kind(**{field.name: None for field in dataclasses.fields(kind)}) == kind()


ARRAYS = [np.array, torch.tensor, lambda ids: array("q", ids), lambda ids: [np.int64(i) for i in ids]]
IDS = {
    "stop_token_ids": lambda of: of([3, 4]),
    "allowed_token_ids": lambda of: of([3, 4]),
    "suppress_tokens": lambda of: of([3]),
    "begin_suppress_tokens": lambda of: of([3, 4, 5]),
    "bad_words": lambda of: [of([3, 4]), of([5])],
    "logit_bias": lambda of: {key: of([2])[0] for key in (np.int32(7), np.int64(8))},
    "sequence_bias": lambda of: [(of([3, 4]), np.float32(0.5))],
    "dry_sequence_breakers": lambda of: [*of([3]), "x"],
    "negative_prompt": lambda of: of([1, 2]),
    "strategy": lambda of: BeamSearch(
        np.int64(2), force_words=[of([3, 4]), [of([5]), of([6, 7])], [*of([8, 9])]]
    ),
    "forced_bos_token_id": lambda of: of([5])[0],
    "exponential_decay_length_penalty": lambda of: (of([5])[0], np.float32(1.5)),
    "temperature": lambda of: np.float32(0.5),
    "max_tokens": lambda of: of([5])[0],
}


@pytest.mark.parametrize("of", ARRAYS, ids=["numpy", "torch", "array", "list of numpy"])
@pytest.mark.parametrize("name", IDS)
def test_numbers_and_arrays_of_numpy_and_torch_are_those_of_python(name: str, of: Any) -> None:
    more = {"guidance_scale": 2.0} if name == "negative_prompt" else {}
    found = GenerationParams(**{name: IDS[name](of)}, **more)
    expected = GenerationParams(**{name: IDS[name](list)}, **more)
    assert found == expected
    assert json.dumps(params_to_plain(found)) == json.dumps(params_to_plain(expected))
    for value in (np.True_, torch.tensor(True), np.array(1.5)):
        with pytest.raises(ParameterError, match="stop_token_ids"):
            GenerationParams(stop_token_ids=[value])


def test_a_matrix_of_token_ids_is_a_list_of_phrases() -> None:
    assert GenerationParams(bad_words=np.array([[1, 2], [3, 4]])).bad_words == ((1, 2), (3, 4))


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
