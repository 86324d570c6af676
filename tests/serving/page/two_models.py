"""Serves two tiny models with different tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers

from decodery import LLM
from decodery.serving.models import ModelSource
from decodery.serving.settings import ServerSettings
from tests.cli.conftest import write_model
from tests.serving.live import LiveServer
from tests.text.vocabularies import byte_level_reference, sentence_piece_reference

# Their names on the server.
BYTES, MERGES = "bytes", "merges"


def write_merging_model(folder: Path) -> str:
    """Writes a random Llama whose tokens are those of a trained byte-level BPE, and returns the folder."""
    return _write_model_of(byte_level_reference(), "<|endoftext|>", folder)


def write_prepending_model(folder: Path) -> str:
    """Writes a random Llama whose tokenizer puts a space before each text, and returns the folder."""
    return _write_model_of(sentence_piece_reference(), "</s>", folder)


def _write_model_of(reference: tokenizers.Tokenizer, eos: str, folder: Path) -> str:
    write_model(folder, rows=reference.get_vocab_size(), context=1024)
    reference.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": eos}))
    return str(folder)


@contextmanager
def serving_two(llm: LLM, merging: LLM) -> Iterator[LiveServer]:
    """Serves both models inside the context: the one of bytes first."""
    models = {BYTES: llm, MERGES: merging}
    sources = [ModelSource(name, lambda found=found: found) for name, found in models.items()]
    server = LiveServer(llm, ServerSettings(), sources)
    try:
        yield server
        server.settle()
    finally:
        server.close()
