"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Tiny models run no faster on two threads, and threads that wait for each other by spinning make a busy
# machine many times slower. Tests about threads set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Another build of the kernels, as `make sanitize` has it.
if "DECODERY_TEST_LIBRARY" in os.environ:
    from decodery.kernels.native import library

    library.PATH = Path(os.environ["DECODERY_TEST_LIBRARY"])


@pytest.fixture(scope="session")
def default_llm() -> Any:
    """The default model on the exact path; fetched once into the user's cache."""
    from decodery import LLM, ModelError
    from decodery.weights.sources.locate import resolve

    try:
        path = resolve(None)
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")
    return LLM(path, dtype="float32", backend="reference")
