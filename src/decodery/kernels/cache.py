"""Holds the paged cache of keys and values."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.kv_formats import stored_width


class LayerKV(NamedTuple):
    """Describes the keys and values that attention layer number `layer` caches for a token."""

    layer: int
    kv_heads: int
    k_width: int
    v_width: int


@dataclass(frozen=True)
class KVShape:
    """Describes the keys and values that a model caches for a token, layer by layer."""

    layers: tuple[LayerKV, ...]

    @classmethod
    def of(cls, layers: Iterable[AttentionLayer]) -> KVShape:
        """Returns the shape for a model's attention layers; those with a `kv_source` cache nothing."""
        own = (layer for layer in layers if layer.kv_source is None)
        return cls(tuple(LayerKV(one.index, one.kv_heads, one.k_width, one.v_width) for one in own))

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        numbers = (kv.kv_heads * stored_width(width, dtype) for kv in self.layers for width in kv[2:])
        return sum(numbers) * dtype.itemsize

    def allocate(
        self,
        pages: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        whole_pages: bool = False,
    ) -> PagedCache:
        """Returns a cache of zeros.

        Numbers that are not written yet must be finite, because masked values are multiplied by 0. With
        `whole_pages`, the keys and values of all layers for one page are contiguous, and pages lie at a
        distance from each other. Otherwise the pages of one layer are contiguous.
        """
        parts = [
            (PAGE_SIZE, kv.kv_heads, stored_width(width, dtype)) for kv in self.layers for width in kv[2:]
        ]
        allocated = _page_by_page if whole_pages else _part_by_part
        blocks, views = allocated(parts, pages, dtype, device)
        pairs = zip(views[::2], views[1::2], strict=True)
        return PagedCache(blocks, {kv.layer: pair for kv, pair in zip(self.layers, pairs, strict=True)})


_Shape = tuple[int, int, int]
_LINE, _LINES_APART, _LINES_ROUND = 64, 33, 64


def _page_by_page(
    parts: list[_Shape], pages: int, dtype: torch.dtype, device: torch.device | str
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Returns one block with all parts of a page side by side, and the parts' views [pages, *part]."""
    sizes = [math.prod(part) for part in parts]
    lines = -(-sum(sizes) * dtype.itemsize // _LINE)
    # At a distance of a multiple of 4,096 bytes, the same head of all pages would compete for a few sets of
    # the first-level cache.
    lines += (_LINES_APART - lines) % _LINES_ROUND
    rows = _zeros((pages, lines * _LINE // dtype.itemsize), dtype, device)[:, : sum(sizes)]
    pieces = rows.split_with_sizes(sizes, 1)
    views = [piece.view(pages, *part) for piece, part in zip(pieces, parts, strict=True)]
    return (rows,), views


def _part_by_part(
    parts: list[_Shape], pages: int, dtype: torch.dtype, device: torch.device | str
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Returns a block for each shape of a part, and the parts' views [pages, *part], each contiguous."""
    apart = {part: _zeros((parts.count(part), pages, *part), dtype, device) for part in dict.fromkeys(parts)}
    unused = {part: iter(block) for part, block in apart.items()}
    return tuple(block.transpose(0, 1) for block in apart.values()), [next(unused[part]) for part in parts]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # torch.zeros writes all of it. numpy requests pages of 2 MB, and allocating those can take longer than
    # all writes to the cache. A memory map allocates only the pages that are written.
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, access=mmap.ACCESS_COPY)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


@dataclass(frozen=True)
class PagedCache:
    """Holds the keys and values of all sequences of an engine.

    `layers` are views of the keys and the values of each layer by its index: [pages, 16, kv_heads,
    `stored_width(width, dtype)`]. `blocks` [pages, ...], with any strides, hold all of them.
    """

    blocks: tuple[Tensor, ...]
    layers: Mapping[int, tuple[Tensor, Tensor]]

    @property
    def dtype(self) -> torch.dtype:
        return self.blocks[0].dtype

    def copy(self, source: int, target: int) -> None:
        """Copies page `source` to page `target`, in place."""
        for block in self.blocks:
            block[target] = block[source]
