"""Provides served tiny encoders, and their twins for what the library computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from decodery import LLM
from tests.encoding.folders import MEAN, NORMALIZE, sentence_folder
from tests.serving.live import LiveServer, serving

PROMPTS = {"query": "question: ", "document": "passage: ", "other": "word "}


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random BERT with prompts, whose vectors have the length 1."""
    folder = tmp_path_factory.mktemp("embedder")
    return sentence_folder(folder, (MEAN, NORMALIZE), settings={"prompts": PROMPTS})


@pytest.fixture(scope="session")
def embedder(embedder_folder: Path) -> LLM:
    """Returns the embedder in the library: what it computes, the server must answer."""
    return LLM(embedder_folder)


@pytest.fixture(scope="session")
def served_embedder(embedder_folder: Path) -> LLM:
    """Returns the embedder of the servers in this process."""
    return LLM(embedder_folder)


@pytest.fixture(scope="module")
def server(served_embedder: LLM) -> Iterator[LiveServer]:
    """Returns a server of the embedder with the default settings."""
    with serving(served_embedder) as found:
        yield found
