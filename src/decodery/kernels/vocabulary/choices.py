"""Defines what the kernels that choose a token and describe the choice take and return."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FusedSamplingArgs(NamedTuple):
    """Holds the penalties, truncations and noise key with which one row's token is chosen from its logits.

    The repetition penalty applies to `tokens[seen:]`, the presence and frequency penalties to
    `tokens[generated:]`. Temperature 0 chooses the likeliest token, and the fields after it are ignored then.
    `top_k` 0 and `top_p` 1 remove no tokens. `min_p` is the logarithm of the least share of the largest
    probability; -inf removes no tokens. `width` is the number of likeliest tokens that are examined first,
    more than `top_k`; 0 examines all. `key` is the key of the noise.
    """

    tokens: array[int]
    seen: int
    generated: int
    repetition: float
    presence: float
    frequency: float
    temperature: float
    top_p: float
    min_p: float
    top_k: int
    width: int
    key: tuple[int, int]


class ChoiceArgs(NamedTuple):
    """Holds one choice to describe: `token`, chosen by the logits in row `place`.

    `shown` of the likeliest tokens are shown beside it, 1 at least. `key` is that of the noise if the token
    was drawn. `stages` says where the logits after each stage are, in order: the index of a tensor and a row
    of it. If the token was found by `choose`, `sampling` are its arguments in place of `stages`, `borders`
    what it found, and `words` `[words]` the mask that was applied before, if there was one.
    """

    place: int
    token: int
    shown: int
    key: tuple[int, int] | None = None
    stages: Sequence[tuple[int, int]] = ()
    sampling: FusedSamplingArgs | None = None
    borders: Sequence[float] = ()
    words: NDArray[np.int32] | None = None


class ChoiceDescription(NamedTuple):
    """Holds what a choice considered.

    `tokens` are the likeliest, in order, and the chosen one if it is not among them. `logits`, `before` and
    `noise` are their logits, probabilities and noise, the last None unless the choice has a key. `rank` is
    that of the chosen token, from 1. `entropy` is in bits. `tail` is the probability of all other tokens.
    `stages` holds those that changed something: index, number of tokens left, and probabilities of `tokens`.
    `kept` is the number of tokens left after all stages. With a mask, `allowed` counts the tokens that it
    left, and `allowed_tokens` are these if they are no more than `shown`.
    """

    tokens: tuple[int, ...]
    logits: tuple[float, ...]
    before: tuple[float, ...]
    noise: tuple[float, ...] | None
    rank: int
    entropy: float
    tail: float
    kept: int
    stages: tuple[tuple[int, int, tuple[float, ...]], ...]
    allowed: int | None = None
    allowed_tokens: tuple[int, ...] = ()


BORDERS = 3
"""The number of a row's borders: those of top-k, top-p and min-p."""
