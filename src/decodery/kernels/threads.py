"""torch's own threads, where they are in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch to the calling thread.

    Its other threads spin on their cores for a while after each operation that they took part in: what runs
    next on threads of its own shares the cores with them.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
