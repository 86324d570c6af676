"""Selects each instruction set of this machine, with 1 to 3 threads, for the tests of the native kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from decodery.kernels.native import library

built = pytest.mark.skipif(not library.available(), reason="the native kernels are not built here")

SETTINGS = (
    [(name, threads) for name in library.instruction_sets() for threads in (1, 2, 3)]
    if library.available()
    else []
)


@contextmanager
def running(setting: tuple[str, int]) -> Iterator[None]:
    """Runs the kernels of one instruction set on that number of threads inside the context."""
    name, threads = setting
    library.use_instruction_set(name)
    library.set_threads(threads)
    try:
        yield
    finally:
        library.use_instruction_set(library.first_instruction_set())
        library.set_threads(2)
