"""Fills the masks of many rows on several threads."""

from __future__ import annotations

import os
from collections.abc import Sequence

from llguidance import LLExecutor, LLMatcher


class MaskThreads:
    """Holds the threads that fill masks; a forked process starts threads of its own."""

    def __init__(self) -> None:
        # By process. A child keeps its parent's executor, whose threads it does not have, and never ends it:
        # the library would notify those threads.
        self._executors: dict[int, LLExecutor] = {}

    def fill(self, matchers: Sequence[tuple[LLMatcher, int]], address: int, width: int, rows: int) -> None:
        """Writes the mask of each matcher into its row of the masks `[rows, width]`, bytes, at an address."""
        process = os.getpid()
        executor = self._executors.get(process)
        if executor is None:
            # Half of the cores: torch's idle threads spin on the others, and masks would wait for them.
            executor = self._executors[process] = LLExecutor(max((os.cpu_count() or 2) // 2, 1))
        executor.unsafe_compute_mask_ptr(list(matchers), address, width, rows)
