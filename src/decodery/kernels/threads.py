"""Threads that spin where others work: torch's and the compiled kernels' wait for work on their cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from decodery.kernels import library


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch to the calling thread.

    Its other threads spin for a while after each operation that they took part in, and what runs next on
    threads of its own shares the cores with them.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Keeps the compiled kernels, where there are any, to the calling thread, for the same reason."""
    if not library.available():
        yield
        return
    before = library.threads()
    try:
        library.set_threads(1)
        yield
    finally:
        library.set_threads(before)
