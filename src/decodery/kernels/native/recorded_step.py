"""Calls of kernels, recorded once and replayed: a step of a model without Python between its kernels."""

from __future__ import annotations

from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.native.library import WORDS, library


class RecordedStep:
    """A program that grows while a model runs; what its calls give stands in `rooms`."""

    def __init__(self, rooms: BufferPool) -> None:
        self.rooms = rooms
        self.whole = True
        """Whether every step of the run was a call; otherwise a replay would miss something."""
        self._calls = bytearray()
        self._program = b""

    def add(self, call: bytes) -> None:
        self._calls += call

    def replay(self) -> None:
        """Make all calls again."""
        if not self._program:
            self._program = bytes(self._calls)
        library().decodery_run(self._program, len(self._program) // (WORDS * 8))
