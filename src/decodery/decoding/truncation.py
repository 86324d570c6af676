"""Truncations: each cuts tokens away by setting their logits to -inf, in place.

All take float32 logits `[rows, vocab]` and the rows that they belong to, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import Row
from decodery.kernels.vocabulary import kth_largest, outside_nucleus


def top_k(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep the k likeliest tokens and what ties with the last of them (Fan et al. 2018)."""
    counts = torch.tensor([row.params.top_k for row in rows], device=logits.device)
    _cut_below(logits, kth_largest(logits, counts))


def top_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep the fewest likeliest tokens whose probabilities reach p, and ties (Holtzman et al. 2019)."""
    mass = torch.tensor([row.params.top_p for row in rows], device=logits.device)
    logits.masked_fill_(outside_nucleus(logits, mass), -torch.inf)


def min_p(logits: Tensor, rows: Sequence[Row]) -> None:
    """Keep tokens whose probability is at least p times that of the likeliest (Nguyen et al. 2024)."""
    fraction = torch.tensor([[row.params.min_p] for row in rows], device=logits.device)
    _cut_below(logits, logits.amax(-1, keepdim=True) + fraction.log())


def _cut_below(logits: Tensor, threshold: Tensor) -> None:
    logits.masked_fill_(logits < threshold, -torch.inf)
