"""Keeps the surprise of a text near a target: mirostat (Basu et al. 2021)."""

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

# The exponent of Zipf's law is estimated from this many of the likeliest tokens.
_ESTIMATED_FROM = 100


def mirostat(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keeps the tokens that a surprise of `mu` bits allows.

    Version 1 keeps the k likeliest tokens, with the k that Zipf's law gives for this surprise. Version 2
    keeps the tokens of at most this surprise. Changes float32 logits `[rows, vocab]` of the whole vocabulary
    in place; the likeliest token always stays.
    """
    for version, cut in ((1, _version_1), (2, _version_2)):
        using = [i for i, row in enumerate(rows) if row.params.mirostat_mode == version]
        if len(using) == len(rows):
            cut(logits, rows)
        elif using:
            part = copied(logits, using)
            cut(part, [rows[i] for i in using])
            copy_rows(part, range(len(using)), logits, using)


def updated_mu(row: Row, processed: Tensor, token: int) -> float:
    """Returns the row's next `mu` after `token` was drawn from its processed logits `[vocab]`.

    It is mu - eta (surprise - tau), with the surprise in bits under the processed distribution. The logits
    are only read.
    """
    params = row.params
    possible = processed[processed > -torch.inf].double()
    surprise = float(possible.logsumexp(0) - processed[token].double()) / math.log(2)
    return _mu(row) - params.mirostat_eta * (surprise - params.mirostat_tau)


def _mu(row: Row) -> float:
    return 2 * row.params.mirostat_tau if row.mu is None else row.mu


def _version_1(logits: Tensor, rows: Sequence[Row]) -> None:
    vocab = logits.shape[-1]
    top, _ = leaders(logits, min(_ESTIMATED_FROM, vocab))
    counts = [_count(values, _mu(row), vocab) for values, row in zip(top.tolist(), rows, strict=True)]
    cut_below(logits, kth_largest(logits, counts))


def _version_2(logits: Tensor, rows: Sequence[Row]) -> None:
    cut_improbable(logits, log_softmax(logits), [-_mu(row) * math.log(2) for row in rows])


def _count(top: Sequence[float], mu: float, vocab: int) -> int:
    """Returns how many tokens to keep (the paper's algorithm 1)."""
    # Least squares over the log ratios of neighbouring probabilities, which are differences of logits.
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
