"""Lists the features of a request and builds every pair. `python -m tests.combinations` writes the table.

A feature is a change of parameters. Features that set the same field to different values (two strategies, two
grammars) are alternatives; any two others are a pair.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

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
    StochasticBeamSearch,
    Watermark,
)
from decodery.decoding.request.combinations import CONFLICTS
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from tests.cli.conftest import byte_tokenizer, write_model

PAGE = Path(__file__).parent.parent / "docs" / "combinations.md"


@dataclass(frozen=True)
class Feature:
    """Holds the name of a feature, its kind and its parameters. Features of one kind are alternatives."""

    name: str
    kind: str
    changes: dict[str, Any]


def features(second: str) -> list[Feature]:
    """Returns all features; `second` is the second model of those that need one."""
    strategies: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0},
        "sampling": {"temperature": 0.8},
        "n": {"n": 2},
        "best_of": {"best_of": 2},
        "beam search": {"strategy": BeamSearch(2)},
        "beam sampling": {"strategy": BeamSearch(2, sample=True)},
        "diverse beams": {"strategy": BeamSearch(2, num_beam_groups=2, diversity_penalty=0.5)},
        "constrained beams": {"strategy": BeamSearch(2, force_words=((66,),))},
        "stochastic beams": {"strategy": StochasticBeamSearch(2)},
        "contrastive search": {"strategy": ContrastiveSearch(2)},
        "contrastive decoding": {"strategy": ContrastiveDecoding(second)},
        "DoLa": {"strategy": DoLa("low")},
    }
    grammars: dict[str, Any] = {
        "Regex": Regex("[a-z]{9,}"),
        "Choice": Choice(("abcdefghi", "bcdefghij")),
        "JsonSchema": JsonSchema({"type": "array", "items": {"type": "integer"}}),
        "JsonObject": JsonObject(),
        "Lark": Lark('start: "x" /[a-z]+/'),
        "Gbnf": Gbnf('root ::= "y" [a-z]+'),
    }
    speculations: dict[str, Any] = {
        "prompt lookup": PromptLookup(),
        "prompt lookup, rejection": PromptLookup(acceptance="rejection"),
        "draft model": DraftModel(second),
        "draft model, rejection": DraftModel(second, acceptance="rejection"),
    }
    alone: dict[str, Any] = {
        "dynatemp_range": 0.3,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.05,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.001,
        "top_n_sigma": 2.0,
        "top_a": 0.1,
        "tfs_z": 0.95,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.3,
        "encoder_repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "encoder_no_repeat_ngram_size": 3,
        "dry_multiplier": 0.8,
        "bad_words": ("zq",),
        "logit_bias": {65: 1.0},
        "sequence_bias": {"ab": 1.0},
        "allowed_token_ids": tuple(range(250)),
        "suppress_tokens": (7,),
        "begin_suppress_tokens": (8,),
        "forced_eos_token_id": 70,
        "exponential_decay_length_penalty": (2, 1.1),
        "watermark": Watermark(),
        "renormalize_logits": True,
        "logits_processors": (lambda ids, logits: logits,),
        "processor_order": tuple(reversed(DEFAULT_ORDER)),
        "min_tokens": 2,
        "min_length": 2,
        "max_length": 200,
        "max_time": 1000.0,
        "stop": "zz",
        "stop_regex": "z+q",
        "stop_token_ids": (3,),
        "stop_when": lambda ids: len(ids) > 90,
        "include_stop": True,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "echo": True,
        "token_healing": True,
        "logprobs": 2,
        "prompt_logprobs": 1,
        "seed": 3,
    }
    listed = [Feature(name, "strategy", changes) for name, changes in strategies.items()]
    listed += [Feature(name, "grammar", {"grammar": value}) for name, value in grammars.items()]
    listed += [Feature(name, "speculate", {"speculate": value}) for name, value in speculations.items()]
    listed += [
        Feature("xtc", "xtc", {"xtc_probability": 0.5}),
        Feature("mirostat v1", "mirostat", {"mirostat_mode": 1}),
        Feature("mirostat v2", "mirostat", {"mirostat_mode": 2}),
        Feature("guidance", "guidance", {"guidance_scale": 1.5, "negative_prompt": "no"}),
        Feature("forced_bos_token_id", "forced_bos_token_id", {"forced_bos_token_id": 120}),
    ]
    return listed + [Feature(name, name, {name: value}) for name, value in alone.items()]


def pairs(listed: Sequence[Feature]) -> Iterator[tuple[Feature, Feature]]:
    """Yields every two features of different kinds."""
    for first, second in combinations(listed, 2):
        if first.kind != second.kind:
            yield first, second


# The first character of the texts of each grammar: a token that may be forced with it.
BEGINNINGS = {"Regex": "a", "Choice": "a", "JsonSchema": "[", "JsonObject": "{", "Lark": "x", "Gbnf": "y"}


def build(first: Feature, second: Feature) -> GenerationParams | str:
    """Returns the parameters of a pair, or the error if they exclude each other."""
    changes: dict[str, Any] = {"max_tokens": 5, "seed": 1} | first.changes | second.changes
    if "forced_bos_token_id" in changes and "grammar" in changes:
        begins = BEGINNINGS[type(changes["grammar"]).__name__]
        changes["forced_bos_token_id"] = byte_tokenizer().token_to_id(begins)
    if getattr(changes.get("strategy"), "force_words", ()) and "grammar" in changes:
        begins = BEGINNINGS[type(changes["grammar"]).__name__]
        changes["strategy"] = BeamSearch(2, force_words=((byte_tokenizer().token_to_id(begins),),))
    try:
        return GenerationParams(**changes)
    except ParameterError as error:
        return str(error)


def table(listed: Sequence[Feature]) -> str:
    """Returns the page: the pairs that exclude each other, with the reasons."""
    refused: dict[str, list[str]] = {}
    count = 0
    for first, second in pairs(listed):
        count += 1
        built = build(first, second)
        if isinstance(built, str):
            refused.setdefault(built, []).append(f"{first.name} × {second.name}")
    lines = [
        "# What combines with what",
        "",
        f"A request has {len(listed)} features. {count} pairs of them are not alternatives to each other.",
        "A test builds every pair and runs them on a tiny model in one batch. The table lists the pairs that",
        "have no meaning; each raises an error when the parameters are built. All other pairs work.",
        "",
        "| pair | why not |",
        "|---|---|",
        *(f"| {'; '.join(names)} | {why} |" for why, names in refused.items()),
        "",
        "The following table lists all rules. Some of them are between alternatives, or between options of",
        "one strategy.",
        "",
        "| | with | why not |",
        "|---|---|---|",
        *(f"| {c.first} | {c.second} | {c.why} |" for c in CONFLICTS),
        "| force_words | num_beam_groups of 2 or more | forced words need one group of beams |",
        "| force_words | sample | forced words need the likeliest beams |",
        "| force_words, or num_beam_groups of 2 or more | rules='transformers-5' | only version 4 has them |",
        "",
        "Some conflicts depend on the values. Then the request fails with an error that names the conflict:",
        "the grammar or a list of allowed tokens excludes a forced token, or the grammar does not allow a",
        "phrase that must occur.",
        "",
        "The features: " + "; ".join(feature.name for feature in listed) + ".",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Writes the page."""
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(table(features(write_model(Path(folder)))), encoding="utf-8")
    sys.stdout.write(f"written to {PAGE}\n")


if __name__ == "__main__":
    main()
