"""Makes one vector of the states of a text's tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ParameterError

States = NDArray[Any]


def _sum(states: States) -> States:
    """Returns the sum of states [tokens, width] in float64, added in their order."""
    found: States = np.add.reduce(states, axis=0, dtype=np.float64)
    return found


def _mean(states: States, first: int) -> States:
    return _sum(states[first:]) / (len(states) - first)


def _mean_sqrt_len(states: States, first: int) -> States:
    return _sum(states[first:]) / math.sqrt(len(states) - first)


def _weighted_mean(states: States, first: int) -> States:
    """Returns the mean in which a token's weight is its place in the text, from 1 (Muennighoff, 2022)."""
    weights = np.arange(first + 1, len(states) + 1, dtype=np.float64)
    found: States = _sum(states[first:] * weights[:, None]) / weights.sum()
    return found


POOLINGS: Mapping[str, Callable[[States, int], States]] = {
    "cls": lambda states, first: states[first],
    "max": lambda states, first: states[first:].max(0),
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": lambda states, first: states[-1],
}
"""Each way to pool, in the order in which sentence-transformers concatenates several of them.

A function takes states [length, width] and the place of the first token that counts."""
SHORT = {"last": "lasttoken", "first": "cls"}


def pooling_named(name: str) -> tuple[str, ...]:
    """Returns the ways to pool of a name such as "mean" or "cls+max"; raises `ParameterError`."""
    names = [part.strip() for part in name.split("+")] if isinstance(name, str) else []
    found = tuple(SHORT.get(part, part) for part in names)
    if not found or any(part not in POOLINGS for part in found):
        raise ParameterError(
            f"pooling must be one of {', '.join(POOLINGS)}, or several with + between them, not {name!r}"
        )
    return found


def pooled(states: States, poolings: Sequence[str], first: int = 0) -> NDArray[np.float32]:
    """Returns the vector [width * len(poolings)] of a text's states [length, width].

    The tokens before `first` do not count. The result depends on nothing but the text's own states: numpy
    adds rows in their order, wherever they lie in memory.
    """
    return np.concatenate([POOLINGS[pooling](states, first) for pooling in poolings]).astype(np.float32)
