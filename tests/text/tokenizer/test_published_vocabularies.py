"""Checks published vocabularies against the ids that their own tokenizers give."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from decodery.text.tokenizer.sentencepiece_files import read_pieces
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.opening import open_checkpoint
from tests.text.archives import llama_cpp_models, mistral_files
from tests.text.direct import merged_by_rank, merged_by_score
from tests.text.vocabularies import CORPUS, odd_strings, repaired

pytestmark = pytest.mark.slow

WITH_VECTORS = (
    *("bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe"),
    *("llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
)
WITHOUT_VECTORS = ("aquila", "baichuan", "gpt-neox", "nomic-bert-moe")
TEXTS = [repaired(text) for text in [*odd_strings(300), *CORPUS[:8]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_cpp_models(tmp_path_factory.mktemp("llama_cpp"))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mistral_files(tmp_path_factory.mktemp("mistral"))


def opened(models: Path, name: str) -> Tokenizer:
    with open_checkpoint(models / f"ggml-vocab-{name}.gguf") as checkpoint:
        return Tokenizer.from_gguf(checkpoint.config)


def vectors(models: Path, name: str) -> Iterator[tuple[str, list[int]]]:
    """Yields the texts of a vocabulary's test file with their ids."""
    file = models / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{file}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{file}.out").read_text().splitlines()
    assert len(texts) - (texts[-1] == "") <= len(lines)
    for text, line in zip(texts, lines, strict=False):
        yield text, [int(token) for token in line.split()]


def test_all_vocabularies_of_the_archive_are_tested(models: Path) -> None:
    names = {file.name.removeprefix("ggml-vocab-") for file in models.glob("ggml-vocab-*")}
    assert {name for name in names if name.endswith(".gguf")} == {
        f"{name}.gguf" for name in (*WITH_VECTORS, *WITHOUT_VECTORS)
    }
    assert {name for name in names if name.endswith(".inp")} == {f"{name}.gguf.inp" for name in WITH_VECTORS}


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_the_ids_are_those_of_the_vectors(name: str, models: Path) -> None:
    tokenizer = opened(models, name)
    tested = 0
    for text, ids in vectors(models, name):
        assert tokenizer.encode(text, add_special_tokens=False) == ids, ascii(text)
        assert tokenizer.encode(text, add_special_tokens=False, parse_special=False) == ids, ascii(text)
        tested += bool(ids)
    assert tested > 35


@pytest.mark.parametrize("name", WITHOUT_VECTORS[:3])
def test_a_text_comes_back(name: str, models: Path) -> None:
    tokenizer = opened(models, name)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        # SentencePiece reads its space mark as a space, and puts a space in front.
        assert tokenizer.decode(ids) in (text, f" {text}".replace("▁", " "))


def test_a_unigram_vocabulary_with_a_character_map_composes_letters(models: Path) -> None:
    tokenizer = opened(models, "nomic-bert-moe")
    assert tokenizer.decode(tokenizer.encode("Tie\u0302\u0301ng Vie\u0323\u0302t")) == " Tiếng Việt"
    assert tokenizer.decode(tokenizer.encode("ｶﾞ ＡＢＣ")) == " ガ ABC"


@pytest.mark.parametrize("kind", ["v1", "240216.model.v2", "240323.model.v3", "241114.model.v7", "v7m1"])
def test_sentencepiece_files_merge_the_best_scored_pair_first(
    kind: str, mistral: Path, tmp_path: Path
) -> None:
    file = next(file for file in mistral.iterdir() if file.name.endswith(kind))
    shutil.copy(file, tmp_path / "tokenizer.model")
    tokenizer = Tokenizer.from_folder(tmp_path)
    pieces = read_pieces(file).pieces
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    for text in TEXTS:
        if "▁" in text or any(mark in text for mark in "<["):
            continue
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == merged_by_score(f" {text}" if text else "", pieces), ascii(text)
        assert tokenizer.decode(ids) == (f" {text}" if text else "")


@pytest.mark.parametrize("name", ["tekken_240718.json", "tekken_240911.json"])
def test_tekken_files_merge_the_lowest_rank_first(name: str, mistral: Path, tmp_path: Path) -> None:
    shutil.copy(mistral / name, tmp_path / "tekken.json")
    tokenizer = Tokenizer.from_folder(tmp_path)
    content: dict[str, Any] = json.loads((mistral / name).read_text(encoding="utf-8"))
    size = content["config"]["default_vocab_size"] - 1000
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in content["vocab"][:size]}
    split = pre_tokenizers.Split(Regex(content["config"]["pattern"]), "isolated")
    assert tokenizer.vocab_size == size + 1000
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
        assert ids == [rank + 1000 for piece in pieces for rank in merged_by_rank(piece.encode(), ranks)]
        assert tokenizer.decode(ids) == text
