"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Tiny models run no faster on two threads, and threads that wait for each other by spinning make a busy
# machine many times slower. Tests about threads, or with a real model, set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def default_llm() -> Iterator[Any]:
    """The default model on the exact path, on two threads; fetched once into the user's cache."""
    import torch

    from decodery import LLM, ModelError
    from decodery.weights.sources import resolve

    try:
        path = resolve(None)
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")
    threads = torch.get_num_threads()
    yield LLM(path, dtype="float32", backend="reference", threads=2)
    torch.set_num_threads(threads)
