from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from decodery.cli.options import changed, notation
from decodery.decoding.params import GenerationParams, Sampling
from decodery.errors import ParameterError
from tests.cli.conftest import Run

DEFAULTS = GenerationParams()

# One text for each field, and what it stands for. A new field must be written here.
WRITTEN: dict[str, tuple[list[str], Any]] = {
    "max_tokens": (["none"], None),
    "min_tokens": (["3"], 3),
    "temperature": (["0.5"], 0.5),
    "top_k": (["7"], 7),
    "top_p": (["0.9"], 0.9),
    "min_p": (["0.1"], 0.1),
    "repetition_penalty": (["1.2"], 1.2),
    "presence_penalty": (["-0.5"], -0.5),
    "frequency_penalty": (["1"], 1.0),
    "logit_bias": (["5=-inf", "3=2.5"], ((3, 2.5), (5, -math.inf))),
    "stop": (["a,b", " "], ("a,b", " ")),
    "include_stop": (["true"], True),
    "stop_token_ids": (["4", "5,6"], (4, 5, 6)),
    "ignore_eos": (["True"], True),
    "skip_special_tokens": (["false"], False),
    "n": (["2"], 2),
    "seed": (["-1"], -1),
    "logprobs": (["0"], 0),
    "prompt_logprobs": (["2"], 2),
    "strategy": (["Sampling()"], Sampling()),
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(GenerationParams)])
def test_every_field_is_read_from_text(name: str) -> None:
    texts, value = WRITTEN[name]
    assert getattr(changed(DEFAULTS, {name: texts}), name) == value


def test_every_field_is_a_flag_with_its_own_help(decodery: Run) -> None:
    told = decodery("generate", "--help").out
    words = " ".join(told.split())
    for field in dataclasses.fields(GenerationParams):
        assert f"--{field.name.replace('_', '-')}" in told
        assert field.metadata["help"] in words


def test_what_is_not_given_stays() -> None:
    settings = DEFAULTS.replace(top_k=4, stop=("x",))
    assert changed(settings, {"top_p": "0.5", "top_k": None, "stop": []}) == settings.replace(top_p=0.5)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("top_k", "many", "top_k must be a whole number, not 'many'"),
        ("top_k", "1.5", "top_k must be a whole number, not '1.5'"),
        ("top_p", "half", "top_p must be a number, not 'half'"),
        ("top_p", "nan", "top_p must be above 0 and at most 1, not nan"),
        ("n", "none", "n must be a whole number, not 'none'"),
        ("ignore_eos", "yes", "ignore_eos must be true or false, not 'yes'"),
        ("logit_bias", "5", "logit_bias must be written as ID=VALUE, not '5'"),
        ("logit_bias", "5=x", "logit_bias must be a number, not 'x'"),
        ("strategy", "Magic", "strategy must be Sampling, not 'Magic'"),
        ("strategy", "Sampling(k=1)", "strategy must be Sampling with no fields, not 'Sampling(k=1)'"),
        ("topp", "1", "unknown parameter: topp"),
    ],
)
def test_a_wrong_text_is_refused_in_one_line(name: str, text: str, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        changed(DEFAULTS, {name: [text]})
    assert str(caught.value) == message


@dataclass(frozen=True)
class Beam:
    width: int = 1
    early: bool | None = None


def test_an_object_is_written_by_its_name_and_fields() -> None:
    read = notation(Sampling | Beam).read
    assert read(["Sampling"]) == Sampling()
    assert read(["Beam(width=4, early=true)"]) == Beam(4, True)
    assert read([str(Beam(2, None)).rpartition(".")[2]]) == Beam(2, None)


def test_a_type_without_a_notation_is_an_error_when_flags_are_made() -> None:
    assert notation(Mapping[int, float]).repeatable
    with pytest.raises(TypeError, match="bytes"):
        notation(bytes)
