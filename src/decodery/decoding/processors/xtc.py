"""Excludes the top choices (XTC), a truncation from above (Weidmann 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.draw import draw_key, stream_seed
from decodery.decoding.processors.truncation import at_least
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import log_softmax, maxima

# Makes the coin independent of the noise that draws the token.
_SALT = 0x5BD1E9955BD1E995


def xtc(logits: Tensor, rows: Sequence[Row]) -> None:
    """Cuts, with the row's probability, all tokens that reach its threshold but the least likely of them.

    Changes float32 logits `[rows, width]` in place. The coin is a function of seed, stream and position.
    """
    chosen = [i for i, row in enumerate(rows) if coin(row) < row.params.xtc_probability]
    if not chosen:
        return
    largest = maxima(log_softmax(logits))[:, 0].tolist()
    for i in chosen:
        logit = logits[i]
        # The threshold's distance from the largest is the same in logits and in log-probabilities.
        threshold = logit.amax() + math.log(at_least(rows[i].params.xtc_threshold)) - largest[i]
        least = torch.threshold(logit, _just_below(threshold), torch.inf).amin()
        if bool(least < torch.inf):
            # `threshold` replaces the smaller values; negated, those are the logits above `least`.
            logit.copy_(torch.threshold(-logit, _just_below(-least), torch.inf).neg_())


def coin(row: Row) -> float:
    """Returns a uniform number in [0, 1) for the row's next token."""
    # Live beams have no stream; all beams of a request share one coin.
    stream = row.streams[0] if row.streams else 0
    low, high = draw_key(stream_seed(row.seed, stream) ^ _SALT, len(row.tokens))
    return (((high & 0xFFFFFFFF) << 21) | ((low & 0xFFFFFFFF) >> 11)) / 2**53


def _just_below(value: Tensor) -> float:
    return float(torch.nextafter(value, torch.full_like(value, -torch.inf)))
