from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from llguidance import LLMatcher, LLTokenizer

from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.request.grammar_params import Choice, JsonSchema, Regex
from decodery.text.tokenizer.grammar_vocab import grammar_vocabulary
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.decoding.grammar.token_sequences import allowed_tokens
from tests.text.kinds import open_kind
from tests.text.vocabularies import (
    byte_level_metadata,
    odd_strings,
    repaired,
    sentence_piece_metadata,
    write_folder,
)

TEXTS = [
    "Once upon a time",
    " the sea",
    "für größere Städte",
    "日本語",
    "😀 👍🏽",
    "x\ny",
    '{"name": 12}',
    "  two",
]


OTHERS = ("sentencepiece unigram", "gguf gemma4", "tiktoken")


@pytest.fixture(scope="module", params=["byte_level", "sentence_piece", "folder", *OTHERS])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param in OTHERS:
        made = open_kind(request.param, tmp_path_factory.mktemp("model"))
    elif request.param == "folder":
        reference: tokenizers.Tokenizer = request.getfixturevalue("sentence_piece")
        folder: Path = write_folder(
            tmp_path_factory.mktemp("model"), reference, tokenizer_config={"eos_token": "</s>"}
        )
        made = Tokenizer.from_folder(folder)
    else:
        reference = request.getfixturevalue(request.param)
        metadata = {"byte_level": byte_level_metadata, "sentence_piece": sentence_piece_metadata}
        made = Tokenizer.from_gguf(metadata[request.param](reference))
    made.cover(made.vocab_size + 13)
    return made


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    return grammar_vocabulary(tokenizer)


def test_every_id_has_its_bytes_and_one_id_more_is_the_end(
    tokenizer: Tokenizer, vocabulary: LLTokenizer
) -> None:
    assert vocabulary.vocab_size == tokenizer.vocab_size + 1
    assert vocabulary.eos_tokens == [tokenizer.vocab_size]
    special = tokenizer.special_ids | set(tokenizer.eos_token_ids)
    for token in range(tokenizer.vocab_size):
        spelling = tokenizer.token_bytes(token)
        # The library marks special tokens by this byte, which is in no text.
        if spelling == b"\xff":
            continue
        assert vocabulary.is_special_token(token) == (token in special)
        if spelling and token not in special:
            assert vocabulary.decode_bytes([token]) == spelling


def test_special_and_empty_ids_are_in_no_mask(tokenizer: Tokenizer, vocabulary: LLTokenizer) -> None:
    state = GrammarCompiler(vocabulary).compile(Regex("(?s:.)+"))
    found = allowed_tokens(state, tokenizer.vocab_size)
    assert not found & (tokenizer.special_ids | set(tokenizer.eos_token_ids))
    assert all(tokenizer.token_bytes(token) for token in found)
    whole = {
        t for t in range(tokenizer.vocab_size) if t not in tokenizer.special_ids and _is_text(tokenizer, t)
    }
    assert whole <= found


def test_forced_text_is_written_as_in_the_middle_of_a_text(
    tokenizer: Tokenizer, vocabulary: LLTokenizer
) -> None:
    for text in (*TEXTS, *map(repaired, odd_strings(200))):
        ids = vocabulary.tokenize_str(text)
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert not set(ids) & tokenizer.special_ids


@pytest.mark.parametrize("text", TEXTS)
def test_a_forced_text_comes_out_whole(tokenizer: Tokenizer, vocabulary: LLTokenizer, text: str) -> None:
    state: Any = GrammarCompiler(vocabulary).compile(Choice((text,)))
    tokens: list[int] = []
    while not state.complete:
        (token, *_) = state.forced or sorted(allowed_tokens(state, tokenizer.vocab_size))
        tokens.append(token)
        state = state.after(token)
    assert b"".join(map(tokenizer.token_bytes, tokens)) == text.encode()


def test_texts_of_a_schema_are_spelled_by_this_vocabulary(
    tokenizer: Tokenizer, vocabulary: LLTokenizer
) -> None:
    start = GrammarCompiler(vocabulary).compile(JsonSchema({"enum": ["the sea", ["für", 12], {"日": None}]}))
    found = set()
    for seed in range(40):
        state: Any = start
        source, tokens = random.Random(seed), []
        while not state.complete:
            tokens.append(source.choice(sorted(allowed_tokens(state, tokenizer.vocab_size))))
            state = state.after(tokens[-1])
        found.add("".join(b"".join(map(tokenizer.token_bytes, tokens)).decode().split()))
    assert found == {'"thesea"', '["für",12]', '{"日":null}'}


def test_a_tokenizer_that_changes_the_text_is_spelled_around(sentence_piece: tokenizers.Tokenizer) -> None:
    metadata = sentence_piece_metadata(sentence_piece)
    tokenizer = Tokenizer.from_gguf(metadata)
    tokenizer.encode = lambda text, **_: [5, 6, 7]  # type: ignore[method-assign]
    vocabulary = grammar_vocabulary(tokenizer)
    ids = vocabulary.tokenize_str("the sea")
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"the sea"
    assert not LLMatcher(vocabulary, LLMatcher.grammar_from_regex("the sea")).is_error()


def _is_text(tokenizer: Tokenizer, token: int) -> bool:
    try:
        return bool(tokenizer.token_bytes(token).decode())
    except UnicodeDecodeError:
        return False
