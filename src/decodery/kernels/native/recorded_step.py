"""Replays the kernel calls of one step of a model, without Python code between them."""

from __future__ import annotations

from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.native.library import WORDS, library


class RecordedStep:
    """Records the kernel calls of a step; their outputs are in `buffers`."""

    def __init__(self, buffers: BufferPool) -> None:
        self.buffers = buffers
        self.complete = True
        """True if only kernels ran, so that a replay repeats the step."""
        self._calls = bytearray()
        self._program = b""

    def add(self, call: bytes) -> None:
        self._calls += call

    def replay(self) -> None:
        """Runs all recorded calls again."""
        if not self._program:
            self._program = bytes(self._calls)
        library().decodery_run(self._program, len(self._program) // (WORDS * 8))
