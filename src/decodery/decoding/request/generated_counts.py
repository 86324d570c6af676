"""Reads how many ids at the end of each prompt are text that was generated before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decodery.errors import ParameterError


def generated_counts(generated: Any, prompts: int) -> list[int]:
    """Returns the count of each prompt: `generated` is one for all of them, or a list with one for each.

    Raises `ParameterError` for anything else.
    """
    several = isinstance(generated, Sequence) and not isinstance(generated, (str, bytes))
    counts = list(generated) if several else [generated] * prompts
    for count in counts:
        if type(count) is not int or count < 0:
            raise ParameterError(f"generated must be a whole number from 0 on, not {count!r}")
    if len(counts) != prompts:
        raise ParameterError(
            f"there are {prompts} prompts and {len(counts)} counts in generated: give one, or one for each"
        )
    return counts
