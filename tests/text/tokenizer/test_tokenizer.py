from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from decodery.errors import ParameterError
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.cli.conftest import write_model
from tests.text.kinds import open_kind
from tests.text.vocabularies import byte_level_metadata, odd_strings, sentence_piece_metadata


@pytest.fixture(scope="module")
def tokenizer(byte_level: tokenizers.Tokenizer) -> Tokenizer:
    return Tokenizer.from_gguf(byte_level_metadata(byte_level))


def test_lone_surrogates_become_replacement_characters_and_pairs_their_character(
    tokenizer: Tokenizer,
) -> None:
    assert tokenizer.encode("a\ud83db") == tokenizer.encode("a\ufffdb")
    assert tokenizer.encode("\ude00\ud83d") == tokenizer.encode("\ufffd\ufffd")
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


def test_decode_is_the_bytes_of_all_tokens_read_as_utf8(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("日本 😀 x")
    for cut in range(len(ids) + 1):
        data = b"".join(tokenizer.token_bytes(token) for token in ids[:cut])
        assert tokenizer.decode(ids[:cut]) == data.decode("utf-8", "replace")


def test_special_tokens_are_skipped_or_shown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|im_end|>b")
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a<|im_end|>b"


def test_a_continuation_keeps_its_leading_space(sentence_piece: tokenizers.Tokenizer) -> None:
    spm = Tokenizer.from_gguf(sentence_piece_metadata(sentence_piece))
    ids = spm.encode("the village", add_special_tokens=False)
    assert spm.decode(ids) == " the village"
    assert spm.decode(ids[:1]) + spm.decode(ids[1:]) == spm.decode(ids)


@pytest.mark.parametrize("token", [-1, 10**6, 2**70])
def test_an_id_outside_the_vocabulary_is_an_error_that_names_it(token: int, tokenizer: Tokenizer) -> None:
    words = rf"token id {token} is outside the vocabulary of {tokenizer.vocab_size} tokens"
    for read in (tokenizer.token_bytes, tokenizer.token_label, lambda one: tokenizer.decode([one])):
        with pytest.raises(ParameterError, match=words):
            read(token)


def test_values_of_the_wrong_type_are_errors(tokenizer: Tokenizer) -> None:
    wrong: Any = 3.5
    with pytest.raises(ParameterError, match="must be an integer, not float"):
        tokenizer.token_bytes(wrong)
    wrong = b"bytes"
    with pytest.raises(ParameterError, match="must be a str, not bytes"):
        tokenizer.encode(wrong)


def test_every_token_has_a_label_on_one_line(tokenizer: Tokenizer) -> None:
    labels = [tokenizer.token_label(token) for token in range(tokenizer.vocab_size)]
    assert all(label.isprintable() and label for label in labels)
    assert tokenizer.token_label(tokenizer.encode("\n")[0]) == "\\n"


@pytest.mark.parametrize("kind", ["gguf gpt2", "gguf t5", "sentencepiece bpe"])
def test_threads_may_share_a_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)
    strings = odd_strings(300)
    with ThreadPoolExecutor(4) as pool:
        literal = list(pool.map(lambda text: tokenizer.encode(text, parse_special=False), strings))
        parsed = list(pool.map(tokenizer.encode, strings))
    expected = [(tokenizer.encode(text), tokenizer.encode(text, parse_special=False)) for text in strings]
    assert list(zip(parsed, literal, strict=True)) == expected


def test_importing_the_text_layer_brings_in_no_heavy_library() -> None:
    program = (
        "import sys, decodery.text.tokenizer.tokenizer, decodery.text.streaming.detokenizer; "
        "import decodery.text.chat.template; "
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ids_that_a_model_has_beyond_its_vocabulary_stand_for_no_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(Path(write_model(tmp_path)))
    size = tokenizer.vocab_size
    with pytest.raises(ParameterError):
        tokenizer.token_bytes(size + 2)
    tokenizer.cover(size + 3)
    assert tokenizer.vocab_size == size + 3
    assert tokenizer.token_bytes(size + 2) == b""
    assert tokenizer.decode([size, size + 1]) == ""
    tokenizer.cover(1)
    assert tokenizer.vocab_size == size + 3
