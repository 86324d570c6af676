"""Holds the settings and fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Tiny models are no faster on two threads, and threads that spin while they wait slow a busy machine down
# many times. Tests of threads set the number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The path of another build of the kernels, which `make sanitize` sets.
if "DECODERY_TEST_LIBRARY" in os.environ:
    from decodery.kernels.native import library

    library.PATH = Path(os.environ["DECODERY_TEST_LIBRARY"])


@pytest.fixture(scope="session")
def default_llm() -> Any:
    """Returns the default model on the exact path, which oracles are compared with."""
    return _default_model(dtype="float32", backend="torch")


@pytest.fixture(scope="session")
def native_llm() -> Any:
    """Returns the default model on the native backend, on which the laws of equality hold bit for bit."""
    from decodery.kernels.native.library import missing

    if missing() is not None:
        pytest.skip(str(missing()))
    return _default_model(backend="native")


def _default_model(**options: Any) -> Any:
    """Returns the default model, which is fetched once into the user's cache."""
    from decodery import LLM, ModelError
    from decodery.weights.sources.locate import resolve

    try:
        path = resolve(None)
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")
    return LLM(path, **options)
