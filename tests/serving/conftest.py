"""Provides a served tiny model, and its twin for the answers of the library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from tests.cli.conftest import write_model
from tests.serving.live import LiveServer, serving

CONTEXT = 1024


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder with a random Llama whose tokens are the 256 bytes and three special ones."""
    return write_model(tmp_path_factory.mktemp("served"), context=CONTEXT)


def open_tiny(folder: str | Path, *, prefix_cache: bool = True, **options: Any) -> LLM:
    """Returns the model of the folder on the default backend."""
    return LLM(
        folder, dtype="float32", kv_memory="16MB", token_budget=64, prefix_cache=prefix_cache, **options
    )


@pytest.fixture(scope="session")
def library(folder: str) -> LLM:
    """Returns the model in the library: what it answers, the server must answer."""
    return open_tiny(folder)


@pytest.fixture(scope="session")
def served_llm(folder: str) -> LLM:
    """Returns the model of the servers in this process, which only one of them may serve at a time."""
    return open_tiny(folder)


@pytest.fixture(scope="module")
def server(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with the default settings."""
    with serving(served_llm) as found:
        yield found
