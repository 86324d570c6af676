"""Parameters as a person types them in a line: NAME=VALUE NAME="two words"."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from decodery.cli.flags.generation_flags import FLAGS, GenerationFlags
from decodery.cli.flags.object_flags import GRAMMAR_FLAGS, SPECULATION_FLAGS, STRATEGY_FLAGS
from decodery.errors import ParameterError


def assignments(line: str) -> dict[str, list[str]]:
    """The texts of each name of a line. Raises `ParameterError` for what is not NAME=VALUE."""
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


def assigned(asked: GenerationFlags, texts: Mapping[str, Sequence[str]]) -> GenerationFlags:
    """What is asked for after these assignments; an empty text unsets.

    Another strategy, grammar or way to draft takes the place of the one before. Raises `ParameterError`.
    """
    unset = {name for name, values in texts.items() if list(values) == [""]}
    for name in unset:
        if name not in FLAGS:
            raise ParameterError(f"unknown parameter: {name}")
    replaced = {
        "strategy": STRATEGY_FLAGS,
        "prompt_lookup": SPECULATION_FLAGS,
        "draft_model": SPECULATION_FLAGS,
    }
    for name in texts:
        unset |= set(GRAMMAR_FLAGS if name in GRAMMAR_FLAGS else replaced.get(name, ()))
    kept = asked.clearing(unset)
    return kept.adding({name: list(values) for name, values in texts.items() if list(values) != [""]})
