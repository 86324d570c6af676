"""Penalises a token by the length of the repetition that it would extend.

DRY ("don't repeat yourself"): Weidmann 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.processors.penalties import tokens_of
from decodery.decoding.rows import Row

# No logit outweighs a penalty of this size, so that a larger one would change nothing.
_LARGEST = 1e30


def dry(logits: Tensor, rows: Sequence[Row]) -> None:
    """Subtracts DRY's penalty from the logit of each token that would extend a repetition.

    The penalty of a repetition of n tokens is multiplier * base^(n - allowed length) if n is at least the
    allowed length, else 0. A repetition reaches back at most to the last sequence breaker, which is a token
    id. Changes float32 logits `[rows, vocab]` in place.
    """
    for logit, row in zip(logits, rows, strict=True):
        params = row.params
        tokens = tokens_of(row)[-params.dry_range :]
        breakers = np.array(params.dry_sequence_breakers, dtype=np.int64)
        longest = min(_since_breaker(tokens, breakers), params.dry_allowed_length + _largest_excess(row))
        if longest < params.dry_allowed_length:
            continue
        extending, lengths = repetitions(tokens, params.dry_allowed_length, longest)
        exponents = lengths - params.dry_allowed_length
        penalties = params.dry_multiplier * params.dry_base ** exponents.astype(np.float64)
        index = torch.from_numpy(extending).to(logit.device)
        logit[index] -= torch.from_numpy(penalties.clip(max=_LARGEST)).to(logit)


def _largest_excess(row: Row) -> int:
    """Returns how many tokens above the allowed length make a repetition's penalty the largest."""
    growth = math.log(row.params.dry_base)
    steps = max(0.0, math.log(_LARGEST / row.params.dry_multiplier))
    return 0 if growth == 0 else math.ceil(min(steps / growth, 1e9))


def _since_breaker(tokens: NDArray[np.int64], breakers: NDArray[np.int64]) -> int:
    places = np.flatnonzero(np.isin(tokens, breakers))
    return len(tokens) - 1 - int(places[-1]) if len(places) else len(tokens)


def repetitions(
    tokens: NDArray[np.int64], shortest: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the tokens that followed an earlier occurrence of the last `shortest` or more of `tokens`.

    Each such token is returned once, with the length of the longest such occurrence, at most `longest`.
    """
    # Positions where earlier occurrences end. Each round keeps those that match one token further back.
    ends = np.arange(len(tokens) - 1)
    lengths = np.zeros(len(tokens), dtype=np.int64)
    for length in range(1, longest + 1):
        ends = ends[ends >= length - 1]
        ends = ends[tokens[ends - (length - 1)] == tokens[-length]]
        if not len(ends):
            break
        if length >= shortest:
            lengths[ends] = length
    found = np.flatnonzero(lengths)
    following, inverse = np.unique(tokens[found + 1], return_inverse=True)
    most = np.zeros(len(following), dtype=np.int64)
    np.maximum.at(most, inverse, lengths[found])
    return following, most
