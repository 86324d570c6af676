from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers

from decodery.errors import CheckpointError
from decodery.loading.open_tokenizer import open_tokenizer
from tests.text.sentencepiece_models import SPECIAL, WORDS, model_bytes
from tests.text.vocabularies import byte_level_metadata, byte_level_reference


@pytest.fixture(scope="module")
def reference() -> tokenizers.Tokenizer:
    return byte_level_reference()


def checkpoint(path: Path, **config: Any) -> Any:
    return SimpleNamespace(path=path, format="gguf" if config else "safetensors", config=config)


def test_a_gguf_files_tokenizer_comes_from_its_keys(reference: tokenizers.Tokenizer, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(checkpoint(tmp_path / "m.gguf", **byte_level_metadata(reference)))
    assert tokenizer.encode("the sea") == reference.encode("the sea").ids


def test_a_folders_tokenizer_comes_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_bytes([*SPECIAL, *WORDS]))
    assert open_tokenizer(checkpoint(tmp_path)).vocab_size == len(SPECIAL) + len(WORDS)


def test_an_error_names_the_file(reference: tokenizers.Tokenizer, tmp_path: Path) -> None:
    damaged = byte_level_metadata(reference) | {"tokenizer.ggml.merges": ["ab"]}
    with pytest.raises(CheckpointError, match=r"m\.gguf: the merge 'ab' .* is not a pair"):
        open_tokenizer(checkpoint(tmp_path / "m.gguf", **damaged))
    (tmp_path / "tokenizer.model").write_bytes(model_bytes([*SPECIAL, *WORDS])[:-3])
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is no intact"):
        open_tokenizer(checkpoint(tmp_path))


def test_warnings_of_a_vocabulary_are_those_of_its_checkpoint(
    reference: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    keys = byte_level_metadata(reference) | {"tokenizer.ggml.padding_token_id": 2**32 - 1}
    opened = checkpoint(tmp_path / "m.gguf", **keys)
    warnings: list[str] = []
    opened.warn = warnings.append
    assert open_tokenizer(opened).pad_token_id is None
    assert [message.split()[0] for message in warnings] == ["tokenizer.ggml.padding_token_id"]
