"""Threads that spin where others work: torch's and the compiled kernels' wait for work on their cores.

What is set here holds for the calling thread alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from decodery.kernels.native import library


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch to the calling thread, where it has its threads of OpenMP.

    Its other threads spin for a while after each operation that they took part in, and what runs next on
    threads of its own shares the cores with them.
    """
    openmp = _openmp()
    if openmp is None:
        yield
        return
    before = openmp.omp_get_max_threads()
    try:
        openmp.omp_set_num_threads(1)
        yield
    finally:
        openmp.omp_set_num_threads(before)


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP that torch runs on. `torch.set_num_threads` would also tell all threads that begin to use
    torch meanwhile, and these would keep it."""
    try:
        found = ctypes.CDLL(torch._C.__file__)
        found.omp_set_num_threads.argtypes = [ctypes.c_int]
        found.omp_get_max_threads.argtypes = []
    except (OSError, AttributeError):
        return None
    return found


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Keeps the compiled kernels, where there are any, to the calling thread, for the same reason."""
    if not library.available():
        yield
        return
    try:
        library.limit_threads(1)
        yield
    finally:
        library.limit_threads(0)
