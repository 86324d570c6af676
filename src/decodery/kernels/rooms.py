"""Memory for the results of kernels, used again and again."""

from __future__ import annotations

import math
import weakref
from bisect import insort
from collections import deque

import torch
from torch import Tensor


class _Lease(weakref.ref[memoryview]):
    """Watches whoever looks into the room of this number."""

    __slots__ = ("number",)
    number: int


class Rooms:
    """Memory for results that is used again once nothing looks into it any more.

    So the layers of a model take turns with a few rooms, and the system need not find new pages for each. A
    tensor gets the smallest free room that it fits into, unless that is more than twice as large.
    """

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []
        self._rooms: list[memoryview] = []
        self._held: dict[int, _Lease] = {}
        self._left: deque[_Lease] = deque()

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor whose room is its own as long as anything sees it."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape)
        size = count * 4
        number = self._take(size)
        lease = self._rooms[number][:size]
        # torch holds the view until the last tensor on it is gone, on any thread. What is called then is no
        # Python code, in which an interrupt would be lost.
        self._held[number] = _Lease(lease, self._left.append)
        self._held[number].number = number
        return torch.frombuffer(lease, dtype=torch.float32, count=count).view(shape)

    def _take(self, size: int) -> int:
        while self._left:
            number = self._left.popleft().number
            del self._held[number]
            insort(self._free, (len(self._rooms[number]), number))
        for place, (room, number) in enumerate(self._free):
            if size <= room <= 2 * size:
                del self._free[place]
                return number
        self._rooms.append(_aligned(size))
        return len(self._rooms) - 1


def _aligned(size: int) -> memoryview:
    """Bytes that begin on a cache line's border: kernels read and write whole lines."""
    room = bytearray(size + 64)
    start = -torch.frombuffer(room, dtype=torch.uint8).data_ptr() % 64
    return memoryview(room)[start : start + size]
