"""Computes attention over whole texts whose scores depend on the distance between query and key."""

from __future__ import annotations

import torch
from torch import Tensor


def longest(positions: Tensor) -> int:
    """Returns the length of the longest text, with padding of [B, S], without of packed texts [tokens].

    Positions must begin at 0.
    """
    return positions.shape[-1] if positions.dim() > 1 else int(positions.max()) + 1


def by_head(x: Tensor, heads: int) -> Tensor:
    """Returns the rows of each head: [..., heads, S, size] of [..., S, heads * size]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-3, -2)


def at_distances(scores: Tensor, keys: int) -> Tensor:
    """Returns a view [..., queries, keys] of scores by distance [..., queries, keys + queries - 1].

    Query i and key j have column `j - i + queries - 1`. The scores must be contiguous.
    """
    *_, queries, columns = scores.shape
    assert columns == keys + queries - 1
    assert scores.is_contiguous()
    # One row further, a key's column is one to the left: a step of a row less one column.
    strides = (*scores.stride()[:-2], columns - 1, 1)
    start = scores.storage_offset() + queries - 1
    return scores.as_strided((*scores.shape[:-2], queries, keys), strides, start)


def mixed(scores: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Returns the values that softmax attention mixes: [B, queries, heads * size].

    scores [B, heads, queries, keys], v [B, heads, keys, size]. `hidden` is True where a query must not see a
    key.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if hidden is not None:
        # Finite, so that a query that sees no key has a result.
        scores = scores.masked_fill(hidden, -1e30)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
