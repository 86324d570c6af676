"""Draws random requests from the features of `tests.combinations`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from decodery import GenerationParams, ParameterError
from tests.combinations import Feature

WORDS = ("abab", "cdcd", "the", "quick", "x", "1,2,", '{"a": ', "\n", "naïve", "...")


def random_request(
    source: random.Random, features: Sequence[Feature], *wanted: Feature
) -> tuple[str, GenerationParams]:
    """Returns a prompt, and parameters with the wanted features and up to six others that combine."""
    while True:
        changes: dict[str, Any] = {
            "max_tokens": source.randint(1, 24),
            "seed": source.randrange(1000),
            "logprobs": source.choice((None, 0, 3)),
        }
        kinds: dict[str, Feature] = {}
        for feature in (*wanted, *source.sample(features, source.randint(1, 6))):
            kinds.setdefault(feature.kind, feature)
        for feature in kinds.values():
            changes |= feature.changes
        try:
            params = GenerationParams(**changes)
        except ParameterError:
            continue
        return random_prompt(source), params


def random_prompt(source: random.Random) -> str:
    """Returns a text of up to sixty tokens with repetitions, which often shares its beginning with others."""
    opening = source.choice(("", "Once upon a time, there was a ", "abab cdcd abab ce"))
    return opening + " ".join(source.choices(WORDS, k=source.randint(1, 6)))
