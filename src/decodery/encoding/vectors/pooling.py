"""Makes one vector of the states of a text's tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from decodery.errors import ParameterError


def _mean(states: Tensor, first: int) -> Tensor:
    found: Tensor = states[first:].mean(0)
    return found


def _mean_sqrt_len(states: Tensor, first: int) -> Tensor:
    part = states[first:]
    return part.sum(0) / math.sqrt(len(part))


def _weighted_mean(states: Tensor, first: int) -> Tensor:
    """Returns the mean in which a token's weight is its place in the text, from 1 (Muennighoff, 2022)."""
    weights = torch.arange(first + 1, len(states) + 1, dtype=states.dtype, device=states.device)
    return (states[first:] * weights[:, None]).sum(0) / weights.sum()


POOLINGS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda states, first: states[first],
    "max": lambda states, first: states[first:].amax(0),
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


def pooled(states: Tensor, poolings: Sequence[str], first: int = 0) -> Tensor:
    """Returns the vector [width * len(poolings)] in float32 of a text's states [length, width].

    The tokens before `first` do not count. The result depends on nothing but the text's own states.
    """
    # A copy in float32 whose memory does not depend on where the text lies in a batch.
    states = states.float().clone()
    return torch.cat([POOLINGS[pooling](states, first) for pooling in poolings])
