"""Truncates distributions: each function sets logits to -inf, in place, and keeps at least one token.

All functions take float32 logits `[rows, width]` and the rows that the logits belong to, in the same order.
They read values only: the columns may be any of the row's tokens, provided that all possible tokens are among
them. Tokens of equal logits stay or go together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import (
    cut_below,
    cut_where_below,
    entropy,
    kth_largest,
    leaders,
    log_softmax,
    maxima,
    nucleus_border,
)

# The relative rounding errors of a probability: of its normalisation, and of its logit, both in float32.
_NORMALISATION, _LOGIT = 2.0**-22, 2.0**-19


def at_least(bound: float) -> float:
    """Returns the smallest probability, computed in float32, that counts as at least `bound`."""
    return bound * (1 - _LOGIT)


def reached(mass: float) -> float:
    """Returns the smallest sum of probabilities, computed in float32, that counts as having reached `mass`.

    An error of the logits changes a sum by less, the closer it is to 1.
    """
    return mass * (1 - _NORMALISATION - (1 - mass) * _LOGIT)


def top_k(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps the k likeliest tokens (Fan et al. 2018)."""
    counts = [min(row.params.top_k, logits.shape[-1]) for row in rows]
    cut_below(logits, kth_largest(logits, counts))


def top_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps the fewest likeliest tokens whose probabilities reach p (Holtzman et al. 2019, section 3.1)."""
    mass = _column(logits, [reached(row.params.top_p) for row in rows])[:, 0]
    cut_below(logits, nucleus_border(logits, log_softmax(logits), mass))


def min_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps tokens whose probability is at least p times that of the likeliest (Nguyen et al. 2024)."""
    below = _column(logits, [math.log(at_least(row.params.min_p)) for row in rows])
    cut_below(logits, maxima(logits) + below)


def top_a(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps tokens whose probability is at least a times the square of the largest."""
    factor = _column(logits, [at_least(row.params.top_a) for row in rows])
    largest = maxima(log_softmax(logits))
    cut_below(logits, maxima(logits) + factor.log() + largest)


def typical_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps the fewest tokens whose probabilities reach p, in the order of their typicality.

    The most typical token is the one whose surprise is closest to the entropy (Meister et al. 2022).
    """
    mass = _column(logits, [reached(row.params.typical_p) for row in rows])[:, 0]
    logprobs = log_softmax(logits)
    closeness = (logprobs + entropy(logprobs)).abs_().neg_()
    cut_where_below(logits, closeness, nucleus_border(closeness, logprobs, mass))


def epsilon_cutoff(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps tokens of at least this probability (Hewitt et al. 2022)."""
    least = [math.log(at_least(row.params.epsilon_cutoff)) for row in rows]
    cut_improbable(logits, log_softmax(logits), least)


def eta_cutoff(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps tokens of probability epsilon or more, or of less than that where the entropy is high.

    The bound is min(epsilon, sqrt(epsilon) exp(-entropy)) (Hewitt et al. 2022).
    """
    logprobs = log_softmax(logits)
    epsilon = _column(logits, [at_least(row.params.eta_cutoff) for row in rows]).log()
    _cut_improbable(logits, logprobs, torch.minimum(epsilon, epsilon / 2 - entropy(logprobs)))


def top_n_sigma(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps logits within n standard deviations of the largest (Tang et al. 2024).

    The deviation is that of the possible tokens' logits.
    """
    # Row by row, because a sum over several rows may add in another order.
    for logit, row in zip(logits, rows, strict=True):
        possible = logit[logit > -torch.inf] if bool(logit.amin() == -torch.inf) else logit
        if not len(possible):
            continue
        deviation = possible.sub(possible.mean()).square_().mean().sqrt()
        cut_below(logit[None], (possible.amax() - row.params.top_n_sigma * deviation)[None, None])


def tfs(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps the likeliest tokens before the tail: tail-free sampling (Bricken 2020).

    In the sorted probabilities, the tail begins where the absolute second differences add up to more than the
    share z of their sum.
    """
    share = _column(logits, [row.params.tfs_z for row in rows])
    cut_below(logits, _tail_border(logits, log_softmax(logits), share))


def _tail_border(logits: Tensor, logprobs: Tensor, share: Tensor, looked: int = 64) -> Tensor:
    """Returns the logit `[rows, 1]` of the last token before the tail.

    Reads the `looked` likeliest tokens; for rows that these do not decide, eight times as many.
    """
    vocab = logits.shape[-1]
    count = min(looked, vocab)
    top, places = leaders(logits, count)
    if count < 3:
        return top[:, -1:]
    probabilities = logprobs.gather(-1, places).exp().double()
    known = probabilities.diff(dim=-1).diff(dim=-1).abs().cumsum(-1)
    # The differences not looked at add up to at most this.
    unseen = probabilities[:, -2:].sum(-1, keepdim=True) if count < vocab else torch.zeros_like(share)
    crossed = known > share * known[:, -1:]
    surely = known > share * (known[:, -1:] + unseen)
    first = crossed.int().argmax(-1, keepdim=True)
    settled = surely[:, -1:] & (first == surely.int().argmax(-1, keepdim=True))
    # A row that never crosses has no tail.
    last = torch.where(crossed[:, -1:], (first - 1).clamp_(min=0), count - 1)
    border = top.gather(-1, last)
    if count < vocab and not bool(settled.all()):
        more = torch.nonzero(~settled[:, 0])[:, 0]
        part = _tail_border(
            logits.index_select(0, more), logprobs.index_select(0, more), share[more], looked * 8
        )
        border.index_copy_(0, more, part)
    return border


def cut_improbable(logits: Tensor, logprobs: Tensor, least: Sequence[float]) -> None:
    """Keeps tokens of at least these log-probabilities, one for each row, and always the likeliest."""
    _cut_improbable(logits, logprobs, _column(logits, least))


def _cut_improbable(logits: Tensor, logprobs: Tensor, least: Tensor) -> None:
    below_largest = (least - maxima(logprobs)).clamp_(max=0)
    cut_below(logits, maxima(logits) + below_largest)


def _column(logits: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=logits.dtype, device=logits.device)[:, None]
