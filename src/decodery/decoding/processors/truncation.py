"""Truncations: each cuts tokens away by setting their logits to -inf, in place, and keeps at least one.

All take float32 logits `[rows, width]` and the rows that they belong to, in the same order. They look at
values only, so that columns may be any of the row's tokens as long as all that are possible are there, and
tokens of equal logits stay or go together.
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


def top_k(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep the k likeliest tokens (Fan et al. 2018)."""
    counts = [min(row.params.top_k, logits.shape[-1]) for row in rows]
    cut_below(logits, kth_largest(logits, counts))


def top_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep the fewest likeliest tokens whose probabilities reach p (Holtzman et al. 2019, section 3.1)."""
    mass = _column(logits, [row.params.top_p for row in rows])[:, 0]
    cut_below(logits, nucleus_border(logits, log_softmax(logits), mass))


def min_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep tokens whose probability is at least p times that of the likeliest (Nguyen et al. 2024)."""
    below = _column(logits, [math.log(row.params.min_p) for row in rows])
    cut_below(logits, maxima(logits) + below)


def top_a(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep tokens whose probability is at least a times the square of the largest."""
    factor = _column(logits, [row.params.top_a for row in rows])
    largest = maxima(log_softmax(logits))
    cut_below(logits, maxima(logits) + factor.log() + largest)


def typical_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep the fewest tokens, by closeness of their surprise to the entropy, whose probabilities reach p
    (Meister et al. 2022)."""
    mass = _column(logits, [row.params.typical_p for row in rows])[:, 0]
    logprobs = log_softmax(logits)
    closeness = (logprobs + entropy(logprobs)).abs_().neg_()
    cut_where_below(logits, closeness, nucleus_border(closeness, logprobs, mass))


def epsilon_cutoff(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep tokens of at least this probability (Hewitt et al. 2022)."""
    cut_improbable(logits, log_softmax(logits), [math.log(row.params.epsilon_cutoff) for row in rows])


def eta_cutoff(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep tokens whose probability is at least epsilon, or less than that where the entropy is high:
    min(epsilon, sqrt(epsilon) exp(-entropy)) (Hewitt et al. 2022)."""
    logprobs = log_softmax(logits)
    epsilon = _column(logits, [row.params.eta_cutoff for row in rows]).log()
    _cut_improbable(logits, logprobs, torch.minimum(epsilon, epsilon / 2 - entropy(logprobs)))


def top_n_sigma(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep logits within n standard deviations, of all possible ones, of the largest (Tang et al. 2024)."""
    # Row by row, as sums over several rows may add in another order.
    for logit, row in zip(logits, rows, strict=True):
        possible = logit[logit > -torch.inf] if bool(logit.amin() == -torch.inf) else logit
        if not len(possible):
            continue
        deviation = possible.sub(possible.mean()).square_().mean().sqrt()
        cut_below(logit[None], (possible.amax() - row.params.top_n_sigma * deviation)[None, None])


def tfs(logits: Tensor, rows: Sequence[Row]) -> None:
    """Tail-free sampling (Bricken 2020): of the sorted probabilities, keep those before the point where the
    absolute second differences add up to more than the share z of all."""
    share = _column(logits, [row.params.tfs_z for row in rows])
    cut_below(logits, _tail_border(logits, log_softmax(logits), share))


def _tail_border(logits: Tensor, logprobs: Tensor, share: Tensor, looked: int = 64) -> Tensor:
    """The logit `[rows, 1]` of the last token before the tail, looking at ever more of the likeliest."""
    vocab = logits.shape[-1]
    count = min(looked, vocab)
    top, places = leaders(logits, count)
    if count < 3:
        return top[:, -1:]
    probabilities = logprobs.gather(-1, places).exp().double()
    known = probabilities.diff(dim=-1).diff(dim=-1).abs().cumsum(-1)
    # The differences not looked at add up to something between nothing and this.
    unseen = probabilities[:, -2:].sum(-1, keepdim=True) if count < vocab else torch.zeros_like(share)
    crossed = known > share * known[:, -1:]
    surely = known > share * (known[:, -1:] + unseen)
    first = crossed.int().argmax(-1, keepdim=True)
    settled = surely[:, -1:] & (first == surely.int().argmax(-1, keepdim=True))
    # What never crosses has no tail.
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
    """Keep tokens of at least these log-probabilities, one for each row, and always the likeliest."""
    _cut_improbable(logits, logprobs, _column(logits, least))


def _cut_improbable(logits: Tensor, logprobs: Tensor, least: Tensor) -> None:
    below_largest = (least - maxima(logprobs)).clamp_(max=0)
    cut_below(logits, maxima(logits) + below_largest)


def _column(logits: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=logits.dtype, device=logits.device)[:, None]
