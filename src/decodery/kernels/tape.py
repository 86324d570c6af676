"""Calls of kernels, recorded once and replayed: a step of a model without Python between its kernels."""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor

from decodery.kernels.library import WORDS, library


class Tape:
    """A program that grows while a model runs.

    Results stand in rooms of the tape's own. A room is free again once nothing looks into it any more, so
    that the layers of a model take turns with a few of them, as a replay does in the same order.
    """

    def __init__(self) -> None:
        self.whole = True
        """Whether every step of the run was a call; otherwise a replay would miss something."""
        self._calls = bytearray()
        self._program = b""
        self._free: dict[int, list[bytearray]] = {}
        self._rooms: list[bytearray] = []

    def add(self, call: bytes) -> None:
        self._calls += call

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor that is the tape's as long as anything sees it."""
        count = math.prod(shape)
        size = max(count * 4, 4)
        free = self._free.setdefault(size, [])
        if free:
            room = free.pop()
        else:
            room = bytearray(size)
            self._rooms.append(room)
        lease = memoryview(room)
        # torch holds the view until the last tensor on it is gone.
        weakref.finalize(lease, free.append, room)
        return torch.frombuffer(lease, dtype=torch.float32, count=count).view(shape)

    def replay(self) -> None:
        """Make all calls again."""
        if not self._program:
            self._program = bytes(self._calls)
        library().decodery_run(self._program, len(self._program) // (WORDS * 8))
