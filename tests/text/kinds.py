"""Opens a small tokenizer of every kind that checkpoints have."""

from __future__ import annotations

from pathlib import Path

from decodery.text.tokenizer.sentencepiece_files import BPE, CHARACTERS
from decodery.text.tokenizer.spelling import NORMAL
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.sentencepiece_models import BYTES, SPECIAL, Piece, model_bytes
from tests.text.tokenizer.test_rank_files import tekken, tiktoken
from tests.text.tokenizer.test_word_lists import PIECES, bpe_files, write
from tests.text.vocabularies import (
    CORPUS,
    byte_level_metadata,
    byte_level_reference,
    plain_text_metadata,
    sentence_piece_metadata,
    sentence_piece_reference,
    write_folder,
)

# Kinds that give every text back, and those that change it first.
EXACT = (
    *("tokenizer.json", "gguf gpt2", "gguf llama", "gguf gemma4", "gguf t5", "sentencepiece bpe"),
    *("sentencepiece unigram", "sentencepiece characters", "tiktoken", "tekken", "merges", "characters"),
)
CHANGING = ("word pieces", "words")


def open_kind(name: str, folder: Path) -> Tokenizer:
    """Returns a tokenizer of a kind of `EXACT` or `CHANGING`, for which it may write files into a folder."""
    if name.startswith("gguf"):
        return Tokenizer.from_gguf(_gguf(name.removeprefix("gguf ")))
    if name == "tokenizer.json":
        return Tokenizer.from_folder(write_folder(folder, byte_level_reference()))
    if name.startswith("sentencepiece"):
        algorithm = {"bpe": BPE, "unigram": 1, "characters": CHARACTERS}[name.removeprefix("sentencepiece ")]
        (folder / "tokenizer.model").write_bytes(model_bytes(_pieces(), algorithm=algorithm))
    elif name == "tiktoken":
        (folder / "tokenizer.model").write_bytes(tiktoken())
    elif name == "tekken":
        (folder / "tekken.json").write_bytes(tekken())
    elif name == "merges":
        write(folder, **bpe_files(byte_level_reference()))
    elif name == "characters":
        texts = ["<unk>", *sorted(set("".join(CORPUS)))]
        write(folder, vocab__json={text: place for place, text in enumerate(texts)})
    elif name == "word pieces":
        write(folder, vocab__txt="\n".join(PIECES))
    else:
        words = sorted({word for line in CORPUS for word in line.split()})
        write(folder, vocab__json={text: place for place, text in enumerate(["<unk>", *words])})
    return Tokenizer.from_folder(folder)


def _gguf(model: str) -> dict[str, object]:
    if model == "gpt2":
        return byte_level_metadata(byte_level_reference())
    if model == "gemma4":
        return plain_text_metadata()
    metadata = sentence_piece_metadata(sentence_piece_reference())
    more = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.add_space_prefix": True}
    return metadata if model == "llama" else metadata | more


def _pieces() -> list[Piece]:
    characters = sorted(set("".join(CORPUS).replace(" ", "▁")) - set("😀日"))
    longer = ("▁the", "th", "▁th", "he", "er", "▁a", "nd", "in")
    words = [(text, -2.0 - len(text), NORMAL) for text in longer]
    singles = [(text, -20.0, NORMAL) for text in characters]
    return [*SPECIAL, *BYTES, *words, *singles]
