"""Measures how fast this machine reads memory, which bounds the speed of decoding."""

from __future__ import annotations

import time

import torch

MEASURED_BYTES = 256 << 20


def read_bandwidth() -> float:
    """Returns the bytes a second that all threads of this process read together, from memory.

    It takes about a tenth of a second and 256 MiB.
    """
    data = torch.ones(MEASURED_BYTES // 8, dtype=torch.int64)
    data.sum()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - start)
    return MEASURED_BYTES / best
