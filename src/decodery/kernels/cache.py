"""Holds the paged cache of keys and values."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.kv_formats import stored_width


@dataclass(frozen=True)
class KVShape:
    """Describes the keys and values that a model caches for a token."""

    layers: int
    kv_heads: int
    head_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        return 2 * self.layers * self.kv_heads * stored_width(self.head_dim, dtype) * dtype.itemsize

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
        page = (PAGE_SIZE, self.kv_heads, stored_width(self.head_dim, dtype))
        if not whole_pages:
            apart = _zeros((2, self.layers, pages, *page), dtype, device)
            return PagedCache(apart.permute(2, 1, 0, 3, 4, 5))
        inner = (self.layers, 2, *page)
        lines = -(-math.prod(inner) * dtype.itemsize // _LINE)
        # At a distance of a multiple of 4,096 bytes, the same head of all pages would compete for a few sets
        # of the first-level cache.
        lines += (_LINES_APART - lines) % _LINES_ROUND
        rows = _zeros((pages, lines * _LINE // dtype.itemsize), dtype, device)
        return PagedCache(rows[:, : math.prod(inner)].view(pages, *inner))


_LINE, _LINES_APART, _LINES_ROUND = 64, 33, 64


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

    `pages` is [pages, layers, 2, 16, kv_heads, `stored_width(head_dim, dtype)`], with any strides.
    """

    pages: Tensor

    @property
    def keys(self) -> Tensor:
        """Returns the keys as a view [layers, pages, 16, kv_heads, width]."""
        return self.pages[:, :, 0].transpose(0, 1)

    @property
    def values(self) -> Tensor:
        """Returns the values as a view [layers, pages, 16, kv_heads, width]."""
        return self.pages[:, :, 1].transpose(0, 1)

    @cached_property
    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Returns the keys and the values of each layer, as views."""
        return tuple(zip(self.keys.unbind(), self.values.unbind(), strict=True))

    def copy(self, source: int, target: int) -> None:
        """Copies page `source` to page `target`, in place."""
        self.pages[target] = self.pages[source]
