from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from decodery.text.tokenizer import spelling


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_byte_alphabet_is_undone(text: str) -> None:
    build = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    written = "".join(piece for piece, _ in build.pre_tokenize_str(text))
    assert spelling.byte_level(written) == text.encode()


def test_a_token_outside_the_byte_alphabet_stands_for_its_text() -> None:
    assert spelling.byte_level("Ġthe") == b" the"
    assert spelling.byte_level("日Ġ") == "日Ġ".encode()
    assert spelling.byte_level("a b") == b"a b"


def test_byte_tokens_are_exactly_those_of_the_form() -> None:
    assert spelling.byte_token("<0x0A>") == b"\n"
    assert spelling.byte_token("<0xfF>") == b"\xff"
    for other in ("<0x0>", "<0x0AA>", "x<0x0A>", "0x0A"):
        assert spelling.byte_token(other) is None


def test_word_pieces_bring_the_space_before_a_word() -> None:
    assert spelling.word_piece("play", "##") + spelling.word_piece("##ing", "##") == b" playing"


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b" the", "␣the"),
        (b"\n\t\x00\x1b", "\\n\\t\\x00\\x1b"),
        ("é日😀".encode(), "é日😀"),
        ("😀".encode()[:2], "\\xf0\\x9f"),
        (b"a\xffb", "a\\xffb"),
        ("\u200d\u00a0".encode(), "\\u200d\\xa0"),
        (b"", ""),
    ],
)
def test_labels_show_what_cannot_be_seen(data: bytes, label: str) -> None:
    assert spelling.label(data) == label
    assert label.isprintable()
