"""Tests words and their tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decodery.encoding.tasks.words import token_spans, word_spans, words_with_tokens
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.encoding.folders import write_tokenizer

TABLE = {
    "": [],
    " \n\t": [],
    "the dog": ["the", "dog"],
    "  the\u00a0dog ": ["the", "dog"],
    "Seattle.": ["Seattle", "."],
    "(Seattle), really?!": ["(", "Seattle", ")", ",", "really", "?", "!"],
    "O'Neil's al-Ain U.S. a_b x@y.com AT&T": ["O'Neil", "'s", "al-Ain", "U.S", ".", "a_b", "x@y.com", "AT&T"],
    "-dog- 'mat' ...": ["-", "dog", "-", "'", "mat", "'", ".", ".", "."],
    "dog\u2019s l\u2019eau": ["dog", "\u2019s", "l\u2019eau"],
    "MERKEL'S 1990's dogs' 's it's-a O's.": [
        *("MERKEL", "'S", "1990", "'s", "dogs", "'", "'", "s", "it's-a", "O", "'s", "."),
    ],
    "1,000 3.5% 50€": ["1", ",", "000", "3.5", "%", "50", "€"],
    "\U0001f600Angela \U0001f468\u200d\U0001f469 x": [
        "\U0001f600",
        "Angela",
        "\U0001f468\u200d",
        "\U0001f469",
        "x",
    ],
    "caf\u00e9 cafe\u0301 \u0930\u093e\u091c\u0940\u0935": [
        "caf\u00e9",
        "cafe\u0301",
        "\u0930\u093e\u091c\u0940\u0935",
    ],
    "我在 北京ABC，ok": ["我", "在", "北", "京", "ABC", "，", "ok"],
    "カタカナ": ["カ", "タ", "カ", "ナ"],
    "서울 한국어": ["서울", "한국어"],
    "ที่นี่": ["ที่", "นี่"],
}


@pytest.mark.parametrize("text", TABLE)
def test_words_are_runs_of_letters_and_single_signs(text: str) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == TABLE[text]


@pytest.fixture(scope="module", params=["word pieces", "byte pairs", "unigrams"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path, request.param)
    return Tokenizer.from_folder(path)


def words_of(tokenizer: Tokenizer, text: str) -> list[tuple[str, list[str]]]:
    """Returns each word with the texts of its tokens."""
    ids, spans = token_spans(tokenizer, text)
    words = words_with_tokens(tokenizer, ids, spans, word_spans(text))
    return [
        (text[word.start : word.end], [tokenizer.token_text(token) for token in ids[word.first : word.last]])
        for word in words
    ]


@pytest.mark.parametrize("text", ["  Angela  Merkel visited Seattle, the city.", *TABLE])
def test_every_word_has_the_tokens_that_are_in_it(tokenizer: Tokenizer, text: str) -> None:
    found = words_of(tokenizer, text)
    ids, spans = token_spans(tokenizer, text)
    inside = [token for token, (start, end) in zip(ids, spans, strict=True) if start < end]
    taken = [token for _, tokens in found for token in tokens]
    assert [t for t in map(tokenizer.token_text, inside) if t not in taken] == []
    # No word is lost or divided, unless the tokenizer drops it; words that share a token are one.
    assert "".join(word for word, _ in found).replace(" ", "") in "".join(text.split())
    for word, _ in found:
        assert word == word.strip()
        assert word


def test_a_word_is_exactly_its_characters_wherever_its_tokens_begin(tokenizer: Tokenizer) -> None:
    text = "\U0001f600 Angela Merkel's dog (in Seattle)."
    found = [word for word, _ in words_of(tokenizer, text)]
    assert found[1:] == ["Angela", "Merkel", "'s", "dog", "(", "in", "Seattle", ")", "."]


def test_a_letter_with_an_accent_that_the_normaliser_removes_is_in_its_word(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    found = words_of(Tokenizer.from_folder(tmp_path), "Ángela me\u0301rkel, 北京")
    assert found == [
        ("Ángela", ["angela"]),
        ("me\u0301rkel", ["merkel"]),
        (",", [","]),
        ("北", ["[UNK]"]),
        ("京", ["[UNK]"]),
    ]


def test_words_that_share_a_token_are_one(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    # Word pieces know no such sign, and no such word.
    assert words_of(tokenizer, "\U0001f600dog €5") == [("\U0001f600dog", ["[UNK]"]), ("€5", ["[UNK]"])]


def test_a_space_of_its_own_belongs_to_the_word_behind_it(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "unigrams")
    assert words_of(Tokenizer.from_folder(tmp_path), "dog 5x") == [
        ("dog", ["▁dog"]),
        ("5x", ["▁", "5", "x"]),
    ]


def test_a_piece_that_continues_a_word_of_the_tokenizer_is_not_a_word_of_its_own(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["€"] = len(content["model"]["vocab"])
    file.write_text(json.dumps(content))
    assert words_of(Tokenizer.from_folder(tmp_path), "a €5 dog") == [
        ("a", ["a"]),
        ("€5", ["€", "##5"]),
        ("dog", ["dog"]),
    ]
