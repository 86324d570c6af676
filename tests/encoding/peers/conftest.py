"""Provides sentence-transformers, which an environment of its own holds."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


@pytest.fixture(scope="session")
def library() -> Any:
    """Returns sentence-transformers; without it tests are skipped, but fail in `make test-encoders`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if "DECODERY_TEST_ENCODERS" in os.environ:
        return importlib.import_module("sentence_transformers")
    return pytest.importorskip("sentence_transformers")
