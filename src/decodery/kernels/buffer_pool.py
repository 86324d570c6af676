"""Memory for the results of kernels, used again and again."""

from __future__ import annotations

import math
import weakref
from collections import deque

import torch
from torch import Tensor


class _BufferReference(weakref.ref[memoryview]):
    """Watches whoever looks into the room of this number."""

    __slots__ = ("number",)
    number: int


class BufferPool:
    """Memory for results that is used again once nothing looks into it any more.

    So the layers of a model share a few buffers, and the system need not find new pages for each. Sizes are
    powers of 2 of bytes, so that sizes that come only once, as those of prompts do, share a buffer. None is
    ever freed.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[int]] = {}
        self._rooms: list[memoryview] = []
        self._held: dict[int, _BufferReference] = {}
        self._left: deque[_BufferReference] = deque()

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
        watcher = _BufferReference(lease, self._left.append)
        watcher.number = number
        self._held[number] = watcher
        return torch.frombuffer(lease, dtype=torch.float32, count=count).view(shape)

    def _take(self, size: int) -> int:
        while self._left:
            number = self._left.popleft().number
            del self._held[number]
            self._free.setdefault(len(self._rooms[number]), []).append(number)
        room = 1 << (size - 1).bit_length()
        free = self._free.get(room)
        if free:
            return free.pop()
        self._rooms.append(_aligned(room))
        return len(self._rooms) - 1


def _aligned(size: int) -> memoryview:
    """Bytes that begin on a cache line's border: kernels read and write whole lines."""
    room = bytearray(size + 64)
    start = -torch.frombuffer(room, dtype=torch.uint8).data_ptr() % 64
    return memoryview(room)[start : start + size]
