"""Limits thread pools whose idle threads would occupy cores that other threads need.

The threads of torch and of the compiled kernels spin on their cores while they wait for work. A limit set
here holds for the calling thread alone.
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
    """Limits torch to the calling thread inside the context, where torch runs on OpenMP.

    After each parallel operation, torch's other threads spin for a while. Threads of another pool that run
    next would share the cores with them.
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
    """Returns the OpenMP library that torch runs on, or None where there is none.

    `torch.set_num_threads` is no substitute: threads that begin to use torch meanwhile take over the number
    that it sets, and keep it.
    """
    try:
        found = ctypes.CDLL(torch._C.__file__)
        found.omp_set_num_threads.argtypes = [ctypes.c_int]
        found.omp_get_max_threads.argtypes = []
    except (OSError, AttributeError):
        return None
    return found


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Limits the compiled kernels to the calling thread inside the context, for the same reason.

    Does nothing where no kernels are built.
    """
    if not library.available():
        yield
        return
    try:
        library.limit_threads(1)
        yield
    finally:
        library.limit_threads(0)
