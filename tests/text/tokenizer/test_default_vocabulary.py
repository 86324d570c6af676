"""Checks that the default model's vocabulary, read from its GGUF, is that of its tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from decodery.errors import ModelError
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.sources.locate import resolve
from tests.text.vocabularies import CORPUS, METADATA, odd_strings, repaired

SPECIAL_COUNT = 17
CODE = [
    "for (int i = 0; i < n; ++i) {\n        sum += x[i] * 3.14f;\n}\n",
    "SELECT * FROM t WHERE a='it''s' AND b<>12345;--\r\n",
    "\t\tif x:\n\t\t\treturn  None   # 100%\n\n\n\n",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
    " <|im_end|> <|im_end|><|endoftext|>x<file_sep><repo_name>",
]
TEXTS = [*odd_strings(), *CORPUS, *CODE]


@pytest.fixture(scope="module")
def metadata() -> Mapping[str, Any]:
    try:
        path = resolve(None)
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")
    with open_checkpoint(path) as checkpoint:
        return checkpoint.config


@pytest.fixture(scope="module")
def ours(metadata: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_gguf(metadata)


def declared(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Returns SmolLM2's published tokenizer.json, with the tokens and merges of the file."""
    tokens: list[str] = metadata[f"{METADATA}tokens"]
    merges = [(left, right) for left, right in (line.split(" ") for line in metadata[f"{METADATA}merges"])]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    reference = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens(
        [
            AddedToken(token, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
            for token in tokens[:SPECIAL_COUNT]
        ]
    )
    return reference


@pytest.fixture(scope="module")
def parsing(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    return declared(metadata)


@pytest.fixture(scope="module")
def literal(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    reference = declared(metadata)
    reference.encode_special_tokens = True
    return reference


def test_the_reference_has_the_published_sizes_and_special_tokens(parsing: tokenizers.Tokenizer) -> None:
    assert parsing.get_vocab_size() == 49152
    assert [parsing.id_to_token(token) for token in (0, 1, 2, 16)] == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<empty_output>",
    ]


def test_special_tokens_are_the_declared_ones(ours: Tokenizer, parsing: tokenizers.Tokenizer) -> None:
    assert ours.special_ids == set(parsing.get_added_tokens_decoder()) == set(range(SPECIAL_COUNT))
    assert ours.vocab_size == parsing.get_vocab_size()


def test_texts_are_encoded_and_decoded_like_the_declared_tokenizer(
    ours: Tokenizer, parsing: tokenizers.Tokenizer
) -> None:
    found_special = 0
    for text in TEXTS:
        ids = parsing.encode(repaired(text)).ids
        assert ours.encode(text) == ids, ascii(text)
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == parsing.decode(ids, skip_special_tokens=skip)
        assert ours.decode(ids, skip_special_tokens=False) == repaired(text)
        found_special += bool(ours.special_ids & set(ids))
    assert found_special > 100


def test_special_tokens_given_as_plain_text_are_plain_text(
    ours: Tokenizer, literal: tokenizers.Tokenizer
) -> None:
    for text in TEXTS:
        ids = literal.encode(repaired(text)).ids
        assert not ours.special_ids & set(ids)
        assert ours.encode(text, parse_special=False) == ids, ascii(text)
        assert ours.decode(ids) == literal.decode(ids) == repaired(text)


def test_every_token_decodes_like_the_declared_tokenizer(
    ours: Tokenizer, parsing: tokenizers.Tokenizer
) -> None:
    for token in range(ours.vocab_size):
        assert ours.decode([token], skip_special_tokens=False) == parsing.decode(
            [token], skip_special_tokens=False
        )
