"""Reuses memory for the outputs of kernels."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from contextlib import suppress

import torch
from torch import Tensor


class _BufferReference(weakref.ref[memoryview]):
    """Refers weakly to the view of buffer `number` that a tensor uses."""

    __slots__ = ("number",)
    number: int


class BufferPool:
    """Reuses buffers for kernel outputs; a buffer is free once no tensor refers to it.

    So the layers of a model share a few buffers, and the system need not provide new pages for each output.
    Sizes are rounded up to powers of 2 of bytes, so that sizes that come only once, such as those of prompts,
    share buffers too. No buffer is returned to the system. Several threads may use a pool at once. It has no
    lock, which a forked child might find locked forever: each change is one atomic operation of Python.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._free: dict[int, list[int]] = {}
        self._buffers: dict[int, memoryview] = {}
        self._held: dict[int, _BufferReference] = {}
        self._released: deque[_BufferReference] = deque()

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Returns an uninitialised float32 tensor in a buffer that no other tensor shares while this one is
        in use.
        """
        count = math.prod(shape)
        if not count:
            return torch.empty(shape)
        size = count * 4
        number = self._take(size)
        view = self._buffers[number][:size]
        # torch holds the view until the last tensor on it is freed, on any thread. The callback is a C
        # function: an interrupt that is raised in Python code called from there would be lost.
        reference = _BufferReference(view, self._released.append)
        reference.number = number
        self._held[number] = reference
        return torch.frombuffer(view, dtype=torch.float32, count=count).view(shape)

    def _take(self, size: int) -> int:
        """Returns the number of a free buffer of at least `size` bytes, new if there is none."""
        with suppress(IndexError):
            while self._released:
                number = self._released.popleft().number
                del self._held[number]
                self._free.setdefault(len(self._buffers[number]), []).append(number)
        capacity = 1 << (size - 1).bit_length()
        with suppress(IndexError):
            return self._free.setdefault(capacity, []).pop()
        number = next(self._numbers)
        self._buffers[number] = _aligned(capacity)
        return number


def _aligned(size: int) -> memoryview:
    """Returns bytes aligned to a cache line, since kernels read and write whole lines."""
    memory = bytearray(size + 64)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % 64
    return memoryview(memory)[start : start + size]
