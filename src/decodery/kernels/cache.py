"""The paged cache of keys and values."""

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
    """The keys and values that a model keeps for a token."""

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
        """A cache of zeros: what is not written yet must be finite, as masked values are multiplied by 0.

        `whole_pages`: what all layers keep of a page stands together, and a page at a distance from the next.
        Otherwise a layer's pages follow each other without gaps.
        """
        page = (PAGE_SIZE, self.kv_heads, stored_width(self.head_dim, dtype))
        if not whole_pages:
            apart = _zeros((2, self.layers, pages, *page), dtype, device)
            return PagedCache(apart.permute(2, 1, 0, 3, 4, 5))
        inner = (self.layers, 2, *page)
        lines = -(-math.prod(inner) * dtype.itemsize // _LINE)
        # At a multiple of 4,096 bytes the same head of all pages would share a few lines of the first cache.
        lines += (_LINES_APART - lines) % _LINES_ROUND
        rows = _zeros((pages, lines * _LINE // dtype.itemsize), dtype, device)
        return PagedCache(rows[:, : math.prod(inner)].view(pages, *inner))


_LINE, _LINES_APART, _LINES_ROUND = 64, 33, 64


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # torch.zeros writes all of it, and numpy asks for memory in pieces of 2 MB, which can take longer to come
    # than all that is written. A map takes the memory of what was written.
    room = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, access=mmap.ACCESS_COPY)
    return torch.frombuffer(room, dtype=dtype).view(shape)


@dataclass(frozen=True)
class PagedCache:
    """Keys and values of all sequences of an engine.

    `pages` is [pages, layers, 2, 16, kv_heads, `stored_width(head_dim, dtype)`] in any order in memory.
    """

    pages: Tensor

    @property
    def keys(self) -> Tensor:
        """[layers, pages, 16, kv_heads, width]; a view."""
        return self.pages[:, :, 0].transpose(0, 1)

    @property
    def values(self) -> Tensor:
        """As `keys`."""
        return self.pages[:, :, 1].transpose(0, 1)

    @cached_property
    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The keys and the values of each layer; views."""
        return tuple(zip(self.keys.unbind(), self.values.unbind(), strict=True))

    def copy(self, source: int, target: int) -> None:
        """Make page `target` the same as page `source`, in place."""
        self.pages[target] = self.pages[source]
