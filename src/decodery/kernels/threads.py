"""Sets the number of threads of torch and of the compiled kernels for the calling thread alone, and ends
torch's threads before a fork.

The threads of both spin on their cores while they wait for work, so those of one slow the other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from decodery.kernels.native import library


@contextmanager
def threads_set(*, torch_threads: int | None, kernel_threads: int | None) -> Iterator[None]:
    """Sets the number of threads that torch and the compiled kernels use for the calling thread inside the
    context.

    None leaves a number as it is. torch's number has no effect where torch does not run on OpenMP.
    `torch.set_num_threads` is no substitute: it sets the number of the whole process.
    """
    sets_kernels = kernel_threads is not None and library.available()
    # torch sets its number in each thread when it is first asked for, which must come before ours.
    torch_before = torch.get_num_threads()
    mkl_before = _call_torch("MKL_Get_Max_Threads")
    kernels_before = library.own_threads() if sets_kernels else 0
    try:
        if torch_threads is not None:
            _set_torch_threads(torch_threads, torch_threads)
        if kernel_threads is not None and sets_kernels:
            library.set_own_threads(kernel_threads)
        yield
    finally:
        if torch_threads is not None:
            _set_torch_threads(torch_before, mkl_before)
        if sets_kernels:
            library.set_own_threads(kernels_before)


def _set_torch_threads(of_openmp: int, of_mkl: int) -> None:
    # MKL ignores OpenMP's number once torch has given MKL one for the process.
    _call_torch("omp_set_num_threads", of_openmp)
    _call_torch("MKL_Set_Num_Threads_Local", of_mkl)


def end_openmp_threads() -> None:
    """Ends the threads that OpenMP keeps for the calling thread; the next parallel operation starts new ones.

    To be called before a fork. The child has none of these threads, and GNU's OpenMP would wait for them
    forever.
    """
    soft = 1  # omp_pause_soft of OpenMP 5.0: keeps the settings.
    _call_torch("omp_pause_resource_all", soft)


def _call_torch(name: str, *arguments: int) -> int:
    """Calls a function of integers of the libraries that torch runs on; 0 where they do not have it."""
    function = _function(name)
    return 0 if function is None else int(function(*arguments))


@cache
def _function(name: str) -> Any:
    try:
        return ctypes.CDLL(torch._C.__file__)[name]
    except (OSError, AttributeError):
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=end_openmp_threads)
