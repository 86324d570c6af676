"""Provides a served tiny model, its twin in the library, and a client of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decodery import LLM
from decodery.client.client import Client
from tests.cli.conftest import write_model
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving

CONTEXT = 512


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("asked"), context=CONTEXT)


@pytest.fixture(scope="session")
def library(folder: str) -> LLM:
    return open_tiny(folder)


@pytest.fixture(scope="module")
def server(folder: str) -> Iterator[LiveServer]:
    with serving(open_tiny(folder)) as found:
        yield found


@pytest.fixture
def client(server: LiveServer) -> Client:
    return Client(server.url, timeout=30)
