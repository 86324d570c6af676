"""Calls of kernels, recorded once and replayed: a step of a model without Python between its kernels."""

from __future__ import annotations

import math
import weakref
from bisect import insort

import torch
from torch import Tensor

from decodery.kernels.library import WORDS, library


class Rooms:
    """Memory for results that is used again once nothing looks into it any more.

    So the layers of a model take turns with a few rooms, and the system need not find new pages for each. A
    tensor gets the smallest free room that it fits into, unless that is more than `spare` times as large.
    """

    def __init__(self, spare: float) -> None:
        self._spare = spare
        self._free: list[tuple[int, int]] = []
        self._rooms: list[memoryview] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor whose room is its own as long as anything sees it."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape)
        size = count * 4
        number = self._take(size)
        lease = self._rooms[number][:size]
        # torch holds the view until the last tensor on it is gone.
        weakref.finalize(lease, insort, self._free, (len(self._rooms[number]), number))
        return torch.frombuffer(lease, dtype=torch.float32, count=count).view(shape)

    def _take(self, size: int) -> int:
        for place, (room, number) in enumerate(self._free):
            if size <= room <= self._spare * size:
                del self._free[place]
                return number
        self._rooms.append(_aligned(size))
        return len(self._rooms) - 1


def _aligned(size: int) -> memoryview:
    """Bytes that begin on a cache line's border: kernels read and write whole lines."""
    room = bytearray(size + 64)
    start = -torch.frombuffer(room, dtype=torch.uint8).data_ptr() % 64
    return memoryview(room)[start : start + size]


class Tape:
    """A program that grows while a model runs. Results stand in rooms of the tape's own, as a replay takes
    them in the same order."""

    def __init__(self) -> None:
        self.whole = True
        """Whether every step of the run was a call; otherwise a replay would miss something."""
        self._calls = bytearray()
        self._program = b""
        self.rooms = Rooms(spare=1)

    def add(self, call: bytes) -> None:
        self._calls += call

    def replay(self) -> None:
        """Make all calls again."""
        if not self._program:
            self._program = bytes(self._calls)
        library().decodery_run(self._program, len(self._program) // (WORDS * 8))
