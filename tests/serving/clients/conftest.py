"""Provides a server process with the default model, for clients that the test environment does not have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decodery import LLM, ModelError
from decodery.weights.sources.locate import resolve
from tests.serving.live import ServerProcess


@pytest.fixture(scope="session")
def path() -> str:
    """Returns the path of the default model."""
    try:
        return str(resolve(None))
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")


@pytest.fixture(scope="session")
def url(path: str) -> Iterator[str]:
    """Returns the address of a server with the default model."""
    server = ServerProcess(f"default={path}")
    try:
        yield server.url
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
    finally:
        server.close()


@pytest.fixture(scope="session")
def encoder_url() -> Iterator[str]:
    """Returns the address of a server with the default encoder."""
    try:
        folder = resolve("minilm")
    except ModelError as error:
        pytest.skip(f"the default encoder is not to be had: {error}")
    server = ServerProcess(f"minilm={folder}")
    try:
        yield server.url
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
    finally:
        server.close()


@pytest.fixture(scope="session")
def encoder(encoder_url: str) -> LLM:
    """Returns the default encoder in the library."""
    return LLM("minilm")


@pytest.fixture(scope="session")
def llm(path: str) -> LLM:
    """Returns the default model in the library."""
    return LLM(path)
