"""Fills a paged cache, and computes plain attention to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.contract import Kernels
from decodery.kernels.kv_formats import restored, stored, stored_width
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias

REFERENCE: Kernels = torch_kernels


@dataclass(frozen=True)
class Shape:
    heads: int = 6
    kv_heads: int = 2
    dim: int = 16


def random_sequence(
    length: int, shape: Shape, seed: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries [length, heads, dim], keys and values [length, kv_heads, dim] of one sequence."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(length, shape.heads, shape.dim, generator=generator)
    k, v = torch.randn(2, length, shape.kv_heads, shape.dim, generator=generator)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def empty_cache(pages: int, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    size = (pages, PAGE_SIZE, shape.kv_heads, stored_width(shape.dim, dtype))
    return torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)


def run_step(
    cache: tuple[Tensor, Tensor],
    sequences: Sequence[tuple[Tensor, Tensor, Tensor]],
    tables: Sequence[Sequence[int]],
    ranges: Sequence[tuple[int, int]],
    sliding_window: int | None = None,
    kernels: Kernels = REFERENCE,
    bias: RelativeBias | None = None,
) -> list[Tensor]:
    """Writes and attends positions `start .. stop - 1` of each sequence in one step; returns a result for
    each.
    """
    starts, lengths = [start for start, _ in ranges], [stop - start for start, stop in ranges]
    q, k, v = (
        torch.cat(
            [sequence[part][start:stop] for sequence, (start, stop) in zip(sequences, ranges, strict=True)]
        )
        for part in range(3)
    )
    plan = kernels.plan_attention(
        tables,
        starts,
        lengths,
        heads=q.shape[1],
        kv_heads=k.shape[1],
        dtype=q.dtype,
        device="cpu",
        sliding_window=sliding_window,
    )
    kernels.write_kv(*cache, plan, k, v)
    out = kernels.paged_attention(q, *cache, plan, 1 / math.sqrt(q.shape[-1]), bias)
    return list(out.split(lengths))


def as_kept(sequence: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the sequence with the keys and values as a cache of `dtype` returns them."""
    q, k, v = sequence
    return q, restored(stored(k, dtype), q.dtype), restored(stored(v, dtype), q.dtype)


def plain_attention(
    sequence: tuple[Tensor, Tensor, Tensor],
    dtype: torch.dtype,
    sliding_window: int | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Computes causal attention of a sequence by its formula, in `dtype`: [length, heads * dim].

    `bias` [heads, length, length] is added to the scores.
    """
    q, k, v = (part.to(dtype) for part in sequence)
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias.to(dtype)
    distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
    hidden = distance < 0
    if sliding_window is not None:
        hidden |= distance >= sliding_window
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).flatten(1)
