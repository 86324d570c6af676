"""Reads parameters from plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decodery.decoding.request.grammar_params import GRAMMARS
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import STRATEGIES


def params_from_plain(mapping: Mapping[str, Any], defaults: GenerationParams) -> GenerationParams:
    """Returns the defaults with these fields changed; strategies and grammars are objects with a `type`."""
    kinds = {
        "".join(c if c.islower() else f"_{c.lower()}" for c in k.__name__)[1:]: k
        for k in (*STRATEGIES, *GRAMMARS)
    }
    fields = dict(mapping)
    for name in ("strategy", "grammar"):
        if isinstance(fields.get(name), dict):
            found = dict(fields[name])
            fields[name] = kinds[found.pop("type")](**found)
    return defaults.replace(**fields)
