"""Fills a paged cache, and computes plain attention to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.kernels.kv_formats import restored, stored, stored_width
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias

REFERENCE: Kernels = torch_kernels
QKV: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Shape:
    heads: int = 6
    kv_heads: int = 2
    dim: int = 16
    v_dim: int | None = None

    @property
    def widths(self) -> tuple[int, int]:
        return self.dim, self.v_dim or self.dim

    def layer(self, **features: Any) -> AttentionLayer:
        """Returns a layer of this shape with the plain scale, unless the features have another."""
        sizes = (self.heads, self.kv_heads, *self.widths)
        return AttentionLayer(0, *sizes, **{"scale": 1 / math.sqrt(self.dim), **features})


def random_sequence(length: int, shape: Shape, seed: int, dtype: torch.dtype) -> QKV:
    """Returns queries [length, heads, dim], keys and values [length, kv_heads, ...] of one sequence."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(length, shape.heads, shape.dim, generator=generator)
    k, v = (torch.randn(length, shape.kv_heads, width, generator=generator) for width in shape.widths)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def empty_cache(pages: int, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    k, v = (
        torch.zeros(pages, PAGE_SIZE, shape.kv_heads, stored_width(width, dtype), dtype=dtype)
        for width in shape.widths
    )
    return k, v


def shape_of(sequence: QKV) -> Shape:
    q, k, v = sequence
    return Shape(q.shape[1], k.shape[1], q.shape[2], v.shape[2])


def run_step(
    cache: tuple[Tensor, Tensor],
    sequences: Sequence[QKV],
    tables: Sequence[Sequence[int]],
    ranges: Sequence[tuple[int, int]],
    layer: AttentionLayer | None = None,
    kernels: Kernels = REFERENCE,
) -> list[Tensor]:
    """Writes and attends positions `start .. stop - 1` of each sequence in one step; returns a result for
    each.
    """
    layer = layer or shape_of(sequences[0]).layer()
    starts, lengths = [start for start, _ in ranges], [stop - start for start, stop in ranges]
    q, k, v = (
        torch.cat(
            [sequence[part][start:stop] for sequence, (start, stop) in zip(sequences, ranges, strict=True)]
        )
        for part in range(3)
    )
    plan = kernels.plan_attention(tables, starts, lengths, kind=layer.kind, dtype=q.dtype, device="cpu")
    kernels.write_kv(*cache, plan, k, v)
    return list(kernels.paged_attention(q, *cache, plan, layer).split(lengths))


def as_kept(sequence: QKV, dtype: torch.dtype) -> QKV:
    """Returns the sequence with the keys and values as a cache of `dtype` returns them."""
    q, k, v = sequence
    return q, restored(stored(k, dtype), q.dtype), restored(stored(v, dtype), q.dtype)


def plain_attention(
    sequence: QKV, dtype: torch.dtype, layer: AttentionLayer | None = None, keys: int | None = None
) -> Tensor:
    """Computes attention of queries to keys by its formula, in `dtype`: [queries, heads * v_dim].

    Query i and key i have the position i. With `keys`, only the first keys are seen.
    """
    layer = layer or shape_of(sequence).layer()
    q, k, v = (part.to(dtype) for part in sequence)
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * layer.scale
    if layer.softcap is not None:
        scores = layer.softcap * (scores / layer.softcap).tanh()
    if layer.bias is not None:
        scores = scores + spread(layer.bias, len(k))[:, : len(q)].to(dtype)
    position, key = torch.arange(len(q))[:, None], torch.arange(len(k))
    seen = key <= position if layer.causal else torch.ones(len(q), len(k), dtype=torch.bool)
    if layer.window is not None:
        seen = seen & (key > position - layer.window) & (key < position + layer.window)
    if layer.chunk is not None:
        seen = seen & (key // layer.chunk == position // layer.chunk)
    if keys is not None:
        seen = seen & (key < keys)
    scores = scores.masked_fill(~seen, -math.inf)
    largest = scores.amax(-1, keepdim=True)
    if layer.sinks is not None:
        sinks = layer.sinks.to(dtype)[:, None, None]
        largest = torch.maximum(largest, sinks)
    weights = (scores - largest).exp()
    total = weights.sum(-1, keepdim=True)
    if layer.sinks is not None:
        total = total + (sinks - largest).exp()
    return torch.einsum("hqk,khd->qhd", weights / total, v).flatten(1)


def spread(bias: RelativeBias, length: int) -> Tensor:
    """Returns the biases [heads, length, length], each looked up on its own."""
    places = torch.arange(length) - torch.arange(length)[:, None] + bias.zero
    return bias.table[:, places.clamp(0, bias.table.shape[1] - 1)]
