"""Reads parameters that are typed in one line, as in NAME=VALUE NAME="two words"."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from decodery.cli.flags.generation_flags import FLAGS, GenerationFlags
from decodery.cli.flags.object_flags import GRAMMAR_FLAGS, SPECULATION_FLAGS, STRATEGY_FLAGS
from decodery.errors import ParameterError


def assignments(line: str) -> dict[str, list[str]]:
    """Returns the texts of each name in a line. Raises `ParameterError` for a word that is not NAME=VALUE."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ParameterError(f"{line!r} cannot be read: {error}") from None
    texts: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ParameterError(f"parameters are written as NAME=VALUE, not {word!r}")
        texts.setdefault(name.replace("-", "_"), []).append(value)
    return texts


def with_assignments(flags: GenerationFlags, texts: Mapping[str, Sequence[str]]) -> GenerationFlags:
    """Returns the flags after these assignments; an empty text unsets a flag.

    A new strategy, grammar or way to draft replaces the one before, with all its flags. Raises
    `ParameterError` for an unknown name and for a value that cannot be read.
    """
    unset = {name for name, values in texts.items() if list(values) == [""]}
    for name in unset:
        if name not in FLAGS:
            raise ParameterError(f"unknown parameter: {name}")
    replaced = {
        "strategy": STRATEGY_FLAGS,
        "speculate": SPECULATION_FLAGS,
        "prompt_lookup": SPECULATION_FLAGS,
        "draft_model": SPECULATION_FLAGS,
    }
    for name in texts:
        unset |= set(GRAMMAR_FLAGS if name in GRAMMAR_FLAGS else replaced.get(name, ()))
    kept = flags.without_flags(unset)
    return kept.with_texts({name: list(values) for name, values in texts.items() if list(values) != [""]})
