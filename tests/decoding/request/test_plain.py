from __future__ import annotations

import dataclasses
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from decodery import (
    BeamSearch,
    Choice,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    DraftModel,
    Gbnf,
    GenerationParams,
    JsonObject,
    JsonSchema,
    Lark,
    ParameterError,
    PromptLookup,
    Regex,
    Sampling,
    StochasticBeamSearch,
    Watermark,
)
from decodery.decoding.request.grammar_params import GRAMMARS
from decodery.decoding.request.plain import FUNCTIONS, params_from_plain, params_to_plain
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.speculation_params import SPECULATIONS
from decodery.decoding.request.strategy_params import STRATEGIES

MODELS = ("small", "tiny")
COUNT = st.integers(0, 10**6)
POSITIVE = st.integers(1, 10**6)
SHARE = st.floats(0.01, 0.99)
ABOVE = st.floats(0.01, 1e6)
FINITE = st.floats(-1e6, 1e6)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
IDS = st.lists(COUNT, min_size=1, max_size=4).map(tuple)
PHRASE = TEXT | IDS
BIAS = FINITE | st.just(-math.inf)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
REGEX = st.sampled_from(["a+", r"\d{2}", "x|y"])
SPELLED = st.text("ab|()", min_size=1)
MODEL = st.sampled_from(MODELS)
# Every field that has a plain form, with the values that it takes.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("max_tokens", "max_length", "best_of"), st.none() | POSITIVE),
    "max_time": st.none() | ABOVE,
    **dict.fromkeys(("n", "dry_allowed_length"), POSITIVE),
    **dict.fromkeys(("min_tokens", "min_length", "top_k", "penalty_range", "dry_range"), COUNT),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), COUNT),
    "temperature": st.just(0) | ABOVE,
    **dict.fromkeys(("dynatemp_range", "dynatemp_exponent", "top_n_sigma", "dry_multiplier"), ABOVE),
    **dict.fromkeys(("mirostat_tau", "mirostat_eta", "repetition_penalty", "guidance_scale"), ABOVE),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_a"), SHARE),
    **dict.fromkeys(("tfs_z", "xtc_probability", "xtc_threshold"), SHARE),
    "encoder_repetition_penalty": ABOVE,
    "dry_base": st.floats(1, 9),
    "mirostat_mode": st.integers(0, 2),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), FINITE),
    **dict.fromkeys(("penalize_prompt", "renormalize_logits", "include_stop"), st.booleans()),
    **dict.fromkeys(("ignore_eos", "skip_special_tokens", "echo", "token_healing"), st.booleans()),
    "dry_sequence_breakers": st.lists(TEXT | COUNT, max_size=3),
    "bad_words": st.lists(PHRASE, max_size=3),
    "logit_bias": st.dictionaries(COUNT, BIAS, max_size=3),
    "sequence_bias": st.dictionaries(PHRASE, BIAS, max_size=3),
    **dict.fromkeys(("allowed_token_ids", "suppress_tokens", "begin_suppress_tokens", "stop_token_ids"), IDS),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), st.none() | COUNT),
    **dict.fromkeys(("logprobs", "prompt_logprobs"), st.none() | COUNT),
    "prompt_logprobs_start": COUNT,
    "exponential_decay_length_penalty": st.none() | st.tuples(COUNT, ABOVE),
    "negative_prompt": st.none() | PHRASE,
    "watermark": st.none() | st.builds(Watermark, SHARE, FINITE, POSITIVE, POSITIVE),
    "processor_order": st.none() | st.permutations(DEFAULT_ORDER),
    "stop": TEXT | st.lists(TEXT, max_size=3),
    "stop_regex": st.none() | REGEX,
    "seed": st.none() | st.integers(-(2**63), 2**64 - 1),
    "grammar": st.none()
    | st.builds(Regex, SPELLED)
    | st.builds(Choice, st.lists(TEXT, min_size=1, max_size=3))
    | st.builds(JsonSchema, st.dictionaries(TEXT, JSON, max_size=3) | st.booleans())
    | st.builds(JsonObject)
    | st.builds(Lark, SPELLED)
    | st.builds(Gbnf, SPELLED),
    "strategy": st.builds(Sampling)
    | st.builds(
        BeamSearch,
        num_beams=st.integers(2, 9),
        length_penalty=st.floats(-5, 5),
        early_stopping=st.sampled_from([True, False, "never"]),
        force_words=st.lists(PHRASE | st.lists(PHRASE, min_size=1, max_size=2), max_size=3),
    )
    | st.builds(BeamSearch, num_beams=st.just(4), num_beam_groups=st.just(2), diversity_penalty=ABOVE)
    | st.builds(
        BeamSearch,
        num_return_sequences=st.integers(1, 4),
        sample=st.booleans(),
        rules=st.sampled_from([None, "transformers-5", "transformers-4"]),
    )
    | st.builds(StochasticBeamSearch, POSITIVE)
    | st.builds(ContrastiveSearch, POSITIVE, SHARE)
    | st.builds(ContrastiveDecoding, MODEL, SHARE, ABOVE)
    | st.builds(DoLa, st.sampled_from(["low", "high"]) | IDS),
    "speculate": st.sampled_from([None, "auto"])
    | st.builds(PromptLookup, POSITIVE, POSITIVE, st.sampled_from(["match", "rejection"]), st.booleans())
    | st.builds(DraftModel, MODEL, POSITIVE),
}


@st.composite
def params(draw: st.DrawFn) -> GenerationParams:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=6, unique=True))
    try:
        return GenerationParams(**{name: draw(FIELDS[name]) for name in names})
    except ParameterError:
        assume(False)
        raise


def sent(value: Any) -> Any:
    """Returns a value as it arrives after having been sent as JSON."""
    return json.loads(json.dumps(value, allow_nan=False).encode("utf-8"))


@given(params(), params())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_is_written_is_read_back(changed: GenerationParams, defaults: GenerationParams) -> None:
    plain = sent(params_to_plain(changed))
    assert params_from_plain(plain, models=MODELS) == changed
    plain = sent(params_to_plain(changed, defaults))
    assert params_from_plain(plain, defaults, models=MODELS) == changed


@pytest.mark.parametrize("name", sorted(FIELDS))
@given(st.data())
@settings(max_examples=5, deadline=None)
def test_every_field_is_written_and_read_back(name: str, data: st.DataObject) -> None:
    try:
        changed = GenerationParams(**{name: data.draw(FIELDS[name])})
    except ParameterError:
        return
    plain = sent(params_to_plain(changed))
    assert set(plain) <= {name}
    assert params_from_plain(plain, models=MODELS) == changed


def test_every_field_is_plain_or_a_function() -> None:
    assert {f.name for f in dataclasses.fields(GenerationParams)} == FIELDS.keys() | set(FUNCTIONS)
    for name in FUNCTIONS:
        with pytest.raises(ParameterError, match=name) as caught:
            params_to_plain(GenerationParams(**{name: lambda *_: True}))
        assert caught.value.param == name


def test_every_class_has_a_type_of_its_own() -> None:
    types = "sampling beam_search stochastic_beam_search contrastive_search contrastive_decoding dola"
    types += " regex choice json_schema json_object lark gbnf prompt_lookup draft_model auto"
    assert len(types.split()) == len((*STRATEGIES, *GRAMMARS, *SPECULATIONS))
    for name in types.split():
        field = next(
            field
            for field in ("strategy", "grammar", "speculate")
            if _message({field: {"type": name, "absurd": 1}})[1] == f"{field}.absurd"
        )
        assert field


def _message(plain: Any, **more: Any) -> tuple[str, str | None]:
    with pytest.raises(ParameterError) as caught:
        params_from_plain(plain, **more)
    return str(caught.value), caught.value.param


WRONG: dict[str, tuple[Any, str | None, str]] = {
    "a name by a letter": ({"temprature": 0.5}, "temprature", "did you mean temperature?"),
    "a nested name by a letter": (
        {"strategy": {"type": "beam_search", "num_beems": 3}},
        "strategy.num_beems",
        "did you mean strategy.num_beams?",
    ),
    "a type by a letter": ({"strategy": {"type": "beem_search"}}, "strategy.type", "mean beam_search?"),
    "a strategy that is a number": ({"strategy": 3}, "strategy", "an object"),
    "a strategy without type": ({"strategy": {"num_beams": 3}}, "strategy.type", "must be one of"),
    "a strategy of numbers": ({"strategy": 3}, "strategy", "an object"),
    "a type that is a list": ({"strategy": {"type": ["dola"]}}, "strategy.type", "must be one of"),
    "a grammar as text": ({"grammar": "root ::= x"}, "grammar", "an object"),
    "a grammar without its text": ({"grammar": {"type": "regex"}}, "grammar.pattern", "missing"),
    "an empty grammar": ({"grammar": {"type": "regex", "pattern": " "}}, "grammar", "empty"),
    "a nested value out of range": (
        {"strategy": {"type": "beam_search", "num_beams": 0}},
        "strategy.num_beams",
        "1 or more",
    ),
    "a value out of range": ({"top_p": 2}, "top_p", "at most 1"),
    "true for a number": ({"temperature": True}, "temperature", "a number"),
    "true for a whole number": ({"top_k": True}, "top_k", "a whole number"),
    "text for a number": ({"top_k": "5"}, "top_k", "a whole number"),
    "a fraction for a whole number": ({"top_k": 5.5}, "top_k", "a whole number"),
    "1 for true": ({"ignore_eos": 1}, "ignore_eos", "true or false"),
    "null in a list": ({"stop_token_ids": [None]}, "stop_token_ids[0]", "a whole number"),
    "infinity": ({"temperature": math.inf}, "temperature", "finite"),
    "not a number": ({"temperature": math.nan}, "temperature", "finite"),
    "a huge whole number": ({"max_tokens": 10**400}, "max_tokens", "64 bits"),
    "a huge number": ({"temperature": 10**400}, "temperature", "finite"),
    "an infinite whole number": ({"top_k": math.inf}, "top_k", "a whole number"),
    "a lone surrogate": ({"stop": ["a", "\ud800"]}, "stop[1]", "surrogate"),
    "a lone surrogate in a name": ({"\ud800": 1}, "?", "unknown"),
    "a lone surrogate in a schema": (
        {"grammar": {"type": "json_schema", "schema": {"enum": ["\ud800"]}}},
        "grammar.schema",
        "surrogate",
    ),
    "a deep list": ({"stop": [[["x"]]]}, "stop[0]", "a text"),
    "a pair of three": ({"exponential_decay_length_penalty": [1, 2, 3]}, None, "a list of"),
    "a bias of a word": ({"logit_bias": {"word": 1}}, "logit_bias", "token ids"),
    "a bias of true": ({"logit_bias": {"5": True}}, "logit_bias.5", "a number"),
    "a bias twice": ({"logit_bias": {"5": 1, "05": 1}}, "logit_bias", "twice"),
    "a bias of infinity": ({"logit_bias": {"5": "inf"}}, "logit_bias.5", "a number"),
    "a bias that is no pair": ({"sequence_bias": [["a", 1], ["b"]]}, "sequence_bias[1]", "a pair"),
    "a function": ({"stop_when": "lambda ids: True"}, "stop_when", "function"),
    "several functions": ({"logits_processors": ["f"]}, "logits_processors", "function"),
    "a path as model": (
        {"strategy": {"type": "contrastive_decoding", "amateur": "/etc/passwd"}},
        "strategy.amateur",
        "offered: none",
    ),
    "a hub id as model": (
        {"speculate": {"type": "draft_model", "model": "someone/model"}},
        "speculate.model",
        "offered: none",
    ),
    "no model": ({"strategy": "contrastive_decoding"}, "strategy.amateur", "missing"),
    "false for no drafts": ({"speculate": False}, "speculate", "auto, none"),
    "no drafts with a field": ({"speculate": {"type": "none", "n": 1}}, "speculate.n", "unknown"),
    "no draft model": ({"speculate": "draft_model"}, "speculate.model", "missing"),
    "parameters that have no meaning together": (
        {"strategy": "beam_search", "n": 2},
        "n",
        "has no meaning with",
    ),
    "no object": ([1], None, "an object"),
}


@pytest.mark.parametrize(("plain", "param", "words"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_errors_with_their_place(plain: Any, param: str | None, words: str) -> None:
    message, found = _message(plain)
    assert words in message
    assert param is None or found == param
    message.encode("utf-8")


DEEP: Any = []
for _ in range(3000):
    DEEP = [DEEP]
LONG = "x" * 100_000


@pytest.mark.parametrize(
    "plain",
    [
        {LONG: 1},
        {"stop_regex": "(" + LONG},
        {"processor_order": [LONG]},
        {"strategy": LONG},
        {"strategy": {"type": "dola", LONG: 1}},
        {"strategy": {"type": "contrastive_decoding", "amateur": LONG}},
        {"sequence_bias": {LONG: "a"}},
        {"logit_bias": {LONG: 1}},
        {"grammar": {"type": "json_schema", "schema": LONG}},
        {"stop": DEEP},
        {"temperature": DEEP},
        {"grammar": {"type": "json_schema", "schema": {"a": DEEP}}},
        {"strategy": {"type": DEEP}},
    ],
)
def test_messages_are_short(plain: Any) -> None:
    message, param = _message(plain)
    assert len(message) <= 400
    assert "x" * 100 not in message
    assert len(param or "") <= 100


@given(st.dictionaries(st.sampled_from(sorted([*FIELDS, *FUNCTIONS])) | TEXT, JSON, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_json_is_parameters_or_a_parameter_error(plain: dict[str, Any]) -> None:
    with suppress(ParameterError):
        params_from_plain(plain)


@pytest.mark.parametrize("kind", sorted({"strategy", "grammar", "speculate", "watermark"}))
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_object_is_an_object_of_parameters_or_a_parameter_error(kind: str, data: st.DataObject) -> None:
    types = st.sampled_from(
        ["beam_search", "dola", "regex", "choice", "json_schema", "prompt_lookup", "watermark"]
    )
    names = st.sampled_from(
        ["num_beams", "force_words", "layers", "pattern", "options", "schema", "max_ngram", "bias", "amateur"]
    )
    plain = data.draw(st.dictionaries(names, JSON, max_size=2))
    with suppress(ParameterError):
        params_from_plain({kind: {"type": data.draw(types), **plain}})


def test_a_whole_number_may_be_written_with_a_point_and_a_number_without() -> None:
    assert params_from_plain({"top_k": 5.0, "temperature": 1}) == GenerationParams(top_k=5)
    assert type(params_from_plain({"top_k": 5.0}).top_k) is int


def test_a_bias_may_be_an_object_or_pairs() -> None:
    expected = GenerationParams(logit_bias={7: 1.5, 9: -math.inf})
    assert params_from_plain({"logit_bias": {"7": 1.5, "9": "-inf"}}) == expected
    assert params_from_plain({"logit_bias": [[9, "-inf"], [7, 1.5]]}) == expected
    expected = GenerationParams(sequence_bias={"a": 1, (1, 2): -2})
    assert params_from_plain({"sequence_bias": [["a", 1], [[1, 2], -2]]}) == expected


def test_a_strategy_with_its_defaults_may_be_its_type_alone() -> None:
    assert params_from_plain({"strategy": "dola"}) == GenerationParams(strategy=DoLa())
    assert params_from_plain({"speculate": "prompt_lookup"}) == GenerationParams(speculate=PromptLookup())


@pytest.mark.parametrize("written", ["none", {"type": "none"}])
def test_none_turns_drafts_off_and_null_is_the_default(written: Any) -> None:
    off = GenerationParams(speculate=None)
    assert params_from_plain({"speculate": written}) == off
    assert params_from_plain({"speculate": written}, GenerationParams(speculate=PromptLookup())) == off
    assert params_from_plain({"speculate": None}, off) == GenerationParams(speculate="auto")
    assert params_from_plain({}, off) == off
    assert params_to_plain(off) == {"speculate": "none"}
    assert params_to_plain(GenerationParams(), off) == {"speculate": {"type": "auto"}}
    assert params_to_plain(off, off) == params_to_plain(GenerationParams()) == {}


@pytest.mark.parametrize("name", ["strategy", "grammar", "watermark"])
def test_only_drafts_are_turned_off_by_the_text_none(name: str) -> None:
    assert _message({name: "none"})[1] in (name, f"{name}.type")


def test_second_models_are_those_that_are_offered() -> None:
    plain = {"strategy": {"type": "contrastive_decoding", "amateur": "small"}}
    assert params_from_plain(plain, models={"small"}).strategy == ContrastiveDecoding("small")
    assert "offered: tiny" in _message(plain, models=["tiny"])[0]
    for model in (Path("small"), type("Model", (), {"tokenizer": None})()):
        with pytest.raises(ParameterError, match=r"strategy\.amateur"):
            params_to_plain(GenerationParams(strategy=ContrastiveDecoding(model)))
