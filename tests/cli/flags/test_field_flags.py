from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from decodery.cli.flags.assignments import assignments, with_assignments
from decodery.cli.flags.generation_flags import FLAGS, WITHOUT_FLAG, GenerationFlags
from decodery.cli.flags.notation import notation_of
from decodery.cli.flags.object_flags import OBJECT_FLAGS, STRATEGIES
from decodery.decoding.request.grammar_params import Choice, Gbnf, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.request.panels import PANELS
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.speculation_params import SPECULATIONS, Auto, DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import STRATEGIES as KINDS
from decodery.decoding.request.strategy_params import (
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    Sampling,
    StochasticBeamSearch,
)
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import ParameterError
from tests.cli.conftest import Run

DEFAULTS = GenerationParams()

# The texts given for each field, and the value that they stand for. A new field needs an entry here.
WRITTEN: dict[str, tuple[list[str], Any]] = {
    "max_tokens": (["none"], None),
    "max_length": (["90"], 90),
    "max_time": (["1.5"], 1.5),
    "min_tokens": (["3"], 3),
    "min_length": (["4"], 4),
    "temperature": (["0.5"], 0.5),
    "dynatemp_range": (["0.2"], 0.2),
    "dynatemp_exponent": (["2"], 2.0),
    "top_k": (["7"], 7),
    "top_p": (["0.9"], 0.9),
    "min_p": (["0.1"], 0.1),
    "typical_p": (["0.8"], 0.8),
    "epsilon_cutoff": (["0.001"], 0.001),
    "eta_cutoff": (["0.002"], 0.002),
    "top_n_sigma": (["1.5"], 1.5),
    "top_a": (["0.2"], 0.2),
    "tfs_z": (["0.95"], 0.95),
    "xtc_probability": (["0.5"], 0.5),
    "xtc_threshold": (["0.2"], 0.2),
    "mirostat_mode": (["2"], 2),
    "mirostat_tau": (["4"], 4.0),
    "mirostat_eta": (["0.2"], 0.2),
    "repetition_penalty": (["1.2"], 1.2),
    "presence_penalty": (["-0.5"], -0.5),
    "frequency_penalty": (["1"], 1.0),
    "penalty_range": (["64"], 64),
    "penalize_prompt": (["false"], False),
    "encoder_repetition_penalty": (["1.1"], 1.1),
    "no_repeat_ngram_size": (["3"], 3),
    "encoder_no_repeat_ngram_size": (["4"], 4),
    "dry_multiplier": (["0.8"], 0.8),
    "dry_base": (["2"], 2.0),
    "dry_allowed_length": (["3"], 3),
    "dry_range": (["128"], 128),
    "dry_sequence_breakers": (["\n", "a,b"], ("\n", "a,b")),
    "bad_words": (["no, never", "nope"], ("no, never", "nope")),
    "logit_bias": (["5=-inf", "3=2.5"], ((3, 2.5), (5, -math.inf))),
    "sequence_bias": (["a=b=1.5", " the end=-inf"], (("a=b", 1.5), (" the end", -math.inf))),
    "allowed_token_ids": (["1,2", "3"], (1, 2, 3)),
    "suppress_tokens": (["4"], (4,)),
    "begin_suppress_tokens": (["5", "6"], (5, 6)),
    "forced_bos_token_id": (["7"], 7),
    "forced_eos_token_id": (["8"], 8),
    "exponential_decay_length_penalty": (["20,1.5"], (20, 1.5)),
    "guidance_scale": (["1.5"], 1.5),
    "negative_prompt": (["none"], "none"),
    "renormalize_logits": (["true"], True),
    "processor_order": ([", ".join(DEFAULT_ORDER[::-1])], DEFAULT_ORDER[::-1]),
    "stop": (["a,b", " "], ("a,b", " ")),
    "stop_regex": (["a{1,2}"], "a{1,2}"),
    "include_stop": (["true"], True),
    "stop_token_ids": (["4", "5,6"], (4, 5, 6)),
    "ignore_eos": (["True"], True),
    "skip_special_tokens": (["false"], False),
    "token_healing": (["true"], True),
    "echo": (["true"], True),
    "n": (["2"], 2),
    "best_of": (["3"], 3),
    "seed": (["-2"], -2),
    "logprobs": (["0"], 0),
    "prompt_logprobs": (["2"], 2),
    "prompt_logprobs_start": (["5"], 5),
}
# A field that needs another one beside it.
BESIDE = {"negative_prompt": {"guidance_scale": "2"}, "prompt_logprobs_start": {"prompt_logprobs": "0"}}
# Fields that hold objects, which are built from several flags.
OBJECT_FIELDS = {"strategy", "grammar", "speculate", "watermark"}
FIELDS = [f.name for f in dataclasses.fields(GenerationParams)]


def params_of(**texts: Any) -> GenerationParams:
    return GenerationFlags().with_texts(texts).params


@pytest.mark.parametrize("name", sorted(set(FIELDS) - OBJECT_FIELDS - set(WITHOUT_FLAG)))
def test_every_field_is_read_from_text(name: str) -> None:
    texts, value = WRITTEN[name]
    assert getattr(params_of(**{name: texts}, **BESIDE.get(name, {})), name) == value


def test_every_field_has_one_flag_with_its_own_help(decodery: Run) -> None:
    assert {n for names in PANELS.values() for n in names} | OBJECT_FIELDS | set(WITHOUT_FLAG) == set(FIELDS)
    printed = decodery("generate", "--help").out
    words = "".join(printed.split())
    for field in dataclasses.fields(GenerationParams):
        if field.name not in OBJECT_FIELDS | set(WITHOUT_FLAG):
            assert f"--{field.name.replace('_', '-')}" in printed
            assert "".join(field.metadata["help"].split()) in words
    for name in WITHOUT_FLAG:
        assert f"--{name.replace('_', '-')}" not in printed


@pytest.mark.parametrize("kind", [*KINDS, *SPECULATIONS, Watermark], ids=lambda kind: kind.__name__)
def test_every_field_of_an_object_has_a_flag(kind: type) -> None:
    reached = {flag.field for flag in OBJECT_FLAGS.values() if kind in flag.kinds}
    assert reached == {f.name for f in dataclasses.fields(kind)}
    assert kind not in KINDS or kind in STRATEGIES.values()


@pytest.mark.parametrize("command", ["generate", "chat", "explain"])
def test_help_is_in_groups_and_fits_the_terminal(decodery: Run, command: str) -> None:
    printed = decodery(command, "--help").out
    assert all(len(line) <= 80 for line in printed.splitlines())
    headings = [line for line in printed.splitlines() if line.endswith(":") and not line.startswith(" ")]
    panels = ["Length:", "Sampling:", "Penalties:", "Strategy:", "Grammar:", "Speculation:", "Model:"]
    assert [heading for heading in headings if heading in panels] == panels
    strategy = printed[printed.index("Strategy:") : printed.index("Grammar:")]
    assert all(f"--{name}" in strategy for name in ("num-beams", "penalty-alpha", "dola-layers"))
    assert "--top-k" not in strategy


def test_a_flag_that_is_not_given_leaves_the_default_of_the_model() -> None:
    model_defaults = GenerationParams(temperature=0.6, top_p=0.9, max_tokens=50)
    flags = GenerationFlags(command_defaults={"max_tokens": 16}).with_texts(
        {"temperature": "0.2", "top_k": None, "stop": []}
    )
    assert flags.params_over(model_defaults) == GenerationParams(temperature=0.2, top_p=0.9, max_tokens=16)
    assert flags.params == GenerationParams(temperature=0.2, max_tokens=16)
    assert flags.with_texts({"max_tokens": "9"}).params_over(model_defaults).max_tokens == 9


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
        ("sequence_bias", "word", "sequence_bias must be written as TEXT=VALUE, not 'word'"),
        (
            "exponential_decay_length_penalty",
            "5",
            "exponential_decay_length_penalty must be written as INTEGER,NUMBER, not '5'",
        ),
        ("strategy", "Magic", f"strategy must be {', '.join(STRATEGIES)}, not 'Magic'"),
        ("early_stopping", "perhaps", "early_stopping must be true or false or never, not 'perhaps'"),
        ("dola_layers", "top", "dola_layers must be low or high or INTEGER,..., not 'top'"),
        ("acceptance", "luck", "acceptance must be match or rejection, not 'luck'"),
        ("topp", "1", "unknown parameter: topp"),
        ("logits_processors", "f", "unknown parameter: logits_processors"),
    ],
)
def test_a_wrong_text_is_refused_in_one_line(name: str, text: str, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        params_of(**{name: [text]})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("texts", "strategy"),
    [
        ({"strategy": "sampling"}, Sampling()),
        ({"num_beams": "5"}, BeamSearch(num_beams=5)),
        ({"strategy": "beam"}, BeamSearch()),
        (
            {
                "length_penalty": "1.2",
                "early_stopping": "never",
                "num_return_sequences": "2",
                "num_beam_groups": "2",
                "diversity_penalty": "0.5",
            },
            BeamSearch(4, 1.2, "never", 2, 2, 0.5),
        ),
        ({"early_stopping": "true"}, BeamSearch(early_stopping=True)),
        ({"force_word": ["a|b", "c d"]}, BeamSearch(force_words=(("a", "b"), "c d"))),
        ({"beam_sample": True}, BeamSearch(sample=True)),
        ({"beam_rules": "transformers-4"}, BeamSearch(rules="transformers-4")),
        ({"strategy": "stochastic-beam", "num_beams": "3"}, StochasticBeamSearch(3)),
        ({"contrastive_k": "6", "penalty_alpha": "0.5"}, ContrastiveSearch(6, 0.5)),
        ({"strategy": "dola"}, DoLa()),
        ({"dola_layers": "low"}, DoLa("low")),
        ({"dola_layers": "2,4"}, DoLa((2, 4))),
        (
            {"amateur": "org/small", "amateur_alpha": "0.2", "amateur_beta": "0.4"},
            ContrastiveDecoding("org/small", 0.2, 0.4),
        ),
    ],
)
def test_flags_build_a_strategy(texts: dict[str, Any], strategy: object) -> None:
    assert params_of(**texts).strategy == strategy


def test_greedy_is_sampling_without_temperature() -> None:
    params = params_of(strategy="greedy")
    assert (params.strategy, params.temperature) == (Sampling(), 0)
    with pytest.raises(ParameterError, match=r"strategy greedy has no meaning with temperature 0\.5"):
        params_of(strategy="greedy", temperature="0.5")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"strategy": "beam", "penalty_alpha": "0.5"}, ["penalty_alpha", "contrastive", "beam"]),
        ({"strategy": "greedy", "num_beams": "2"}, ["num_beams", "beam or stochastic-beam", "greedy"]),
        ({"strategy": "stochastic-beam", "length_penalty": "2"}, ["length_penalty", "stochastic-beam"]),
        ({"num_beams": "2", "dola_layers": "low"}, ["num_beams", "dola_layers", "dola"]),
        ({"regex": "a", "choice": ["b"]}, ["regex", "choice", "two grammars"]),
        ({"prompt_lookup": True, "draft_model": "m"}, ["prompt_lookup", "draft_model"]),
        ({"speculate": True, "prompt_lookup": True}, ["speculate", "prompt_lookup"]),
        ({"lookup_ngram": "2", "draft_model": "m"}, ["lookup_ngram", "draft_model"]),
        ({"draft_tokens": "3"}, ["draft_tokens", "prompt_lookup or draft_model"]),
    ],
)
def test_flags_that_do_not_belong_together_name_both(
    decodery: Run, texts: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ParameterError) as caught:
        params_of(**texts)
    assert all(word in str(caught.value) for word in words)


def test_a_flag_of_another_strategy_is_a_usage_error(decodery: Run) -> None:
    ran = decodery("generate", "x", "--strategy=beam", "--dola-layers=low")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "decodery: dola_layers belongs to strategy dola, not to beam\n"


def test_flags_build_a_grammar(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text('root ::= "a"\n')
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    rules, schema = str(tmp_path / "rules"), str(tmp_path / "schema.json")
    assert params_of(regex="a+").grammar == Regex("a+")
    assert params_of(choice=["yes", "no, never"]).grammar == Choice(("yes", "no, never"))
    assert params_of(json_object=True).grammar == JsonObject()
    assert params_of(json_schema=schema).grammar == JsonSchema({"type": "object"})
    assert params_of(json_schema='{"type": "array"}').grammar == JsonSchema({"type": "array"})
    loose = params_of(json_schema=schema, json_approximate=True).grammar
    assert loose == JsonSchema({"type": "object"}, unsupported="approximate")
    with pytest.raises(ParameterError, match="json_approximate needs json_schema"):
        params_of(json_approximate=True)
    assert params_of(gbnf=rules).grammar == Gbnf('root ::= "a"')
    assert params_of(lark=rules).grammar == Lark('root ::= "a"')


def test_a_grammar_file_that_is_not_there_is_named(decodery: Run) -> None:
    ran = decodery("generate", "x", "--lark=/no/such/file")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "/no/such/file cannot be read" in ran.err


def test_flags_build_speculation_and_a_watermark() -> None:
    assert params_of().speculate == params_of(speculate=True).speculate == Auto()
    assert params_of(prompt_lookup=False).speculate == Auto()
    assert params_of(speculate=False).speculate is None
    assert params_of(prompt_lookup=True).speculate == PromptLookup()
    assert params_of(lookup_ngram="2", draft_tokens="5").speculate == PromptLookup(2, 5)
    drafted = params_of(draft_model="m", draft_tokens="3", acceptance="rejection", draft_adaptive=False)
    assert drafted.speculate == DraftModel("m", 3, "rejection", False)
    assert params_of(watermark=True).watermark == Watermark()
    marked = params_of(watermark_bias="3", watermark_ratio="0.5", watermark_scheme="selfhash").watermark
    assert marked == Watermark(0.5, 3.0, seeding_scheme="selfhash")


@pytest.mark.parametrize(
    ("command", "flag"), [("generate", "--no-speculate"), ("serve", "--no-remember-texts")]
)
def test_a_switch_that_may_be_on_has_a_form_that_turns_it_off(decodery: Run, command: str, flag: str) -> None:
    # A second, unknown flag stops the command before it does anything.
    ran = decodery(command, flag, "--absurd")
    assert "No such option: --absurd" in ran.err


def test_a_new_strategy_or_grammar_replaces_the_one_before() -> None:
    flags = GenerationFlags().with_texts({"num_beams": "4", "regex": "a", "top_k": "5"})
    flags = with_assignments(flags, assignments("strategy=contrastive contrastive-k=3 choice=b"))
    assert flags.params == GenerationParams(strategy=ContrastiveSearch(3), grammar=Choice(("b",)), top_k=5)
    assert with_assignments(flags, assignments("strategy= choice=")).params == GenerationParams(top_k=5)


def test_a_new_way_to_draft_replaces_the_one_before() -> None:
    flags = GenerationFlags().with_texts({"speculate": False})
    assert flags.params.speculate is None
    flags = with_assignments(flags, assignments("prompt-lookup=true draft-tokens=3"))
    assert flags.params.speculate == PromptLookup(num_tokens=3)
    flags = with_assignments(flags, assignments("speculate=false"))
    assert flags.params.speculate is None
    assert with_assignments(flags, assignments("speculate=")).params == GenerationParams()


def test_no_two_flags_have_the_same_name() -> None:
    assert len({*FLAGS}) == len(FLAGS)
    assert not set(FLAGS) & {
        "file",
        "chat",
        "system",
        "json",
        "stats",
        "top",
        "html",
        "svg",
        "debug",
        "model",
    }


def test_a_type_without_a_notation_is_an_error_when_flags_are_made() -> None:
    assert notation_of(Mapping[int, float]).repeatable
    assert notation_of(Literal["a", "b"]).metavar == "a|b"
    with pytest.raises(TypeError, match="bytes"):
        notation_of(bytes)
