"""DRY ("don't repeat yourself"): a penalty that grows with the length of the repetition it breaks (Weidmann
2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.processors.penalties import tokens_of
from decodery.decoding.rows import Row

# No logit outweighs this; a longer repetition cannot be made less likely.
_LARGEST = 1e30


def dry(logits: Tensor, rows: Sequence[Row]) -> None:
    """Subtract multiplier * base^(n - allowed length) from the logit of each token that would extend a
    repetition of n tokens, where n is at least the allowed length.

    Float32 logits `[rows, vocab]`, changed in place. A repetition reaches back at most to the last sequence
    breaker, which is a token id.
    """
    for logit, row in zip(logits, rows, strict=True):
        params = row.params
        tokens = tokens_of(row)[-params.dry_range :]
        breakers = np.array(params.dry_sequence_breakers, dtype=np.int64)
        longest = min(_since_breaker(tokens, breakers), params.dry_allowed_length + _useful(row))
        if longest < params.dry_allowed_length:
            continue
        extending, lengths = repetitions(tokens, params.dry_allowed_length, longest)
        exponents = lengths - params.dry_allowed_length
        penalties = params.dry_multiplier * params.dry_base ** exponents.astype(np.float64)
        index = torch.from_numpy(extending).to(logit.device)
        logit[index] -= torch.from_numpy(penalties.clip(max=_LARGEST)).to(logit)


def _useful(row: Row) -> int:
    """By how many tokens more than allowed a repetition may be longer before its penalty is the largest."""
    growth = math.log(row.params.dry_base)
    steps = max(0.0, math.log(_LARGEST / row.params.dry_multiplier))
    return 0 if growth == 0 else math.ceil(min(steps / growth, 1e9))


def _since_breaker(tokens: NDArray[np.int64], breakers: NDArray[np.int64]) -> int:
    places = np.flatnonzero(np.isin(tokens, breakers))
    return len(tokens) - 1 - int(places[-1]) if len(places) else len(tokens)


def repetitions(
    tokens: NDArray[np.int64], shortest: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens that followed an earlier occurrence of the last `shortest` or more of `tokens`.

    Gives each such token once, with the length of the longest such occurrence, at most `longest`.
    """
    # Where earlier occurrences end; in each round those stay that match one token further back.
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
