"""Mirostat: keep the surprise of a text near a target (Basu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from decodery.decoding.processors.truncation import cut_improbable
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import (
    copied,
    copy_rows,
    cut_below,
    kth_largest,
    leaders,
    log_softmax,
)

# How many of the likeliest tokens the exponent of Zipf's law is estimated from.
_ESTIMATED_FROM = 100


def mirostat(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep what a surprise of `mu` bits allows: version 1 the k tokens that Zipf's law then asks for,
    version 2 the tokens of at most that surprise.

    Float32 logits `[rows, vocab]` of the whole vocabulary, changed in place; the likeliest token stays.
    """
    for version, cut in ((1, _first), (2, _second)):
        using = [i for i, row in enumerate(rows) if row.params.mirostat_mode == version]
        if len(using) == len(rows):
            cut(logits, rows)
        elif using:
            part = copied(logits, using)
            cut(part, [rows[i] for i in using])
            copy_rows(part, range(len(using)), logits, using)


def updated_mu(row: Row, processed: Tensor, token: int) -> float:
    """The row's next `mu` after `token` was drawn from its processed logits `[vocab]`, which are read only.

    mu - eta (surprise - tau), with the surprise in bits under the processed distribution.
    """
    params = row.params
    possible = processed[processed > -torch.inf].double()
    surprise = float(possible.logsumexp(0) - processed[token].double()) / math.log(2)
    return _mu(row) - params.mirostat_eta * (surprise - params.mirostat_tau)


def _mu(row: Row) -> float:
    return 2 * row.params.mirostat_tau if row.mu is None else row.mu


def _first(logits: Tensor, rows: Sequence[Row]) -> None:
    vocab = logits.shape[-1]
    top, _ = leaders(logits, min(_ESTIMATED_FROM, vocab))
    counts = [_count(values, _mu(row), vocab) for values, row in zip(top.tolist(), rows, strict=True)]
    cut_below(logits, kth_largest(logits, counts))


def _second(logits: Tensor, rows: Sequence[Row]) -> None:
    cut_improbable(logits, log_softmax(logits), [-_mu(row) * math.log(2) for row in rows])


def _count(top: Sequence[float], mu: float, vocab: int) -> int:
    """How many tokens to keep (the paper's algorithm 1)."""
    # Minimum mean squared error over the ratios of neighbouring probabilities; their logs are logit steps.
    steps = [a - b for a, b in pairwise(top) if a - b < math.inf]
    ranks = [math.log((i + 2) / (i + 1)) for i in range(len(steps))]
    squares = sum(t * t for t in ranks)
    exponent = sum(t * b for t, b in zip(ranks, steps, strict=True)) / squares if squares else 0.0
    if not exponent > 0:
        return vocab
    epsilon = exponent - 1
    if abs(epsilon) < 1e-9:
        norm = 1 / math.log(vocab) if vocab > 1 else 1.0
    else:
        norm = epsilon / -math.expm1(-epsilon * math.log(vocab))
    log_count = (math.log(norm) + mu * math.log(2)) / exponent
    return max(1, int(math.exp(min(log_count, math.log(vocab)))))
