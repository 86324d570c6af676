"""Checks where in the bytes of a text each token is found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from decodery.text.tokenizer.byte_spans import byte_spans
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.text.kinds import CHANGING, EXACT, open_kind
from tests.text.vocabularies import odd_strings, repaired

# These have no token for most characters, and the token for unknown ones takes their place.
UNKNOWING = (*CHANGING, "characters")
FAMILY = "👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧"
TEXTS = (
    FAMILY,
    f"an emoji 😀 the flag 🇩🇪 and {FAMILY} the end",
    "the the the the the",
    " the  the\n\n\tthe\N{ZERO WIDTH SPACE}\N{RIGHT-TO-LEFT OVERRIDE}the",
    "▁the ▁",
    "x" * 10_000,
    *(repaired(text) for text in odd_strings(300)),
)


def spelled(tokenizer: Tokenizer, text: str) -> list[tuple[bytes, bytes, tuple[int, int]]]:
    """Returns for each token its own bytes, those of the text in its span, and the span."""
    ids, spans = tokenizer.encode_spans(text, add_special_tokens=False)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    data = text.encode()
    return [(tokenizer.token_bytes(i), data[a:b], (a, b)) for i, (a, b) in zip(ids, spans, strict=True)]


@pytest.mark.parametrize("kind", [kind for kind in EXACT if kind not in UNKNOWING])
def test_spans_divide_the_text_and_hold_each_tokens_own_bytes(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)
    for text in TEXTS:
        found = spelled(tokenizer, text)
        for own, held, _ in found:
            # A space may be one that the tokenizer adds, and SentencePiece reads its own mark as one.
            read = own if "▁" not in text else own.replace(b" ", "▁".encode())
            assert held in (own, own.removeprefix(b" ")) or held.replace(b" ", "▁".encode()) in (
                read,
                read.removeprefix("▁".encode()),
            )
        assert all(one[1] == other[0] for (*_, one), (*_, other) in pairwise(found))
        assert [a for *_, (a, _) in found[:1]] == [0][: len(found)]
        assert [b for *_, (_, b) in found[-1:]] == [len(text.encode())][: len(found)]


@pytest.mark.parametrize("kind", UNKNOWING)
def test_unknown_words_stand_for_their_whole_text(kind: str, tmp_path: Path) -> None:
    tokenizer = open_kind(kind, tmp_path)
    for text in TEXTS:
        data = text.encode()
        found = spelled(tokenizer, text)
        place = 0
        for own, held, (start, end) in found:
            assert not any(c.isalnum() for c in data[place:start].decode())
            assert place <= start < end
            assert held.decode()
            if own.strip() in (b"the", b"and"):
                assert held.strip().lower() == own.strip()
            place = end


def test_each_half_of_a_character_has_its_own_bytes(tmp_path: Path) -> None:
    found = spelled(open_kind("tiktoken", tmp_path), "a 😀")
    assert [span for *_, span in found[-4:]] == [(2, 3), (3, 4), (4, 5), (5, 6)]


def test_tokens_around_a_text_take_no_bytes(tmp_path: Path) -> None:
    tokenizer = open_kind("gguf llama", tmp_path)
    ids, spans = tokenizer.encode_spans("the")
    assert ids == tokenizer.encode("the")
    assert tokenizer.prefix_ids
    assert spans[: len(tokenizer.prefix_ids)] == [(0, 0)] * len(tokenizer.prefix_ids)
    assert spans[-1][1] == 3


def test_a_lone_surrogate_counts_as_the_bytes_of_its_replacement(tmp_path: Path) -> None:
    tokenizer = open_kind("tokenizer.json", tmp_path)
    ids, spans = tokenizer.encode_spans("a\ud83db")
    assert (ids, spans) == tokenizer.encode_spans("a\ufffdb")
    assert spans[-1][1] == 5


COMPOSED = "é".encode()


@pytest.mark.parametrize(
    ("text", "pieces", "characters", "spans"),
    [
        # Unicode's form C: the library knows where the composed letter was.
        ("e\u0301 a", [COMPOSED, b" a"], [(0, 2), (2, 4)], [(0, 3), (3, 5)]),
        ("ﬁi", [b"f", b"i", b"i"], [(0, 1), (0, 1), (1, 2)], [(0, 3), (0, 3), (3, 4)]),
        ("The CAT", [b"the", b" cat"], [(0, 3), (3, 7)], [(0, 3), (3, 7)]),
        # The parts of a character behind a changed one.
        (
            "É😀",
            [COMPOSED, b"\xf0\x9f", b"\x98\x80"],
            [(0, 1), (1, 2), (1, 2)],
            [(0, 2), (2, 4), (4, 6)],
        ),
        # Offsets that cannot be right: the changed stretch is shared, the rest is found by its bytes.
        ("a ﬁ b", [b"a", b" f", b"i", b" b"], [(0, 0)] * 4, [(0, 1), (1, 5), (1, 5), (5, 7)]),
        ("a ﬁ", [b"a", b" f", b"i"], [(0, 3), (3, 6), (6, 9)], [(0, 1), (1, 5), (1, 5)]),
        # Spaces that the tokenizer removes or adds.
        ("  a   b ", [b" a", b" b"], [(0, 0)] * 2, [(1, 3), (5, 7)]),
        ("a</s>b", [b"a", b"</s>", b" b"], [(0, 0)] * 3, [(0, 1), (1, 5), (5, 6)]),
        ("", [], [], []),
        ("", [b" "], [(0, 0)], [(0, 0)]),
    ],
)
def test_where_the_text_is_changed_first_spans_stay_true(
    text: str, pieces: list[bytes], characters: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> None:
    assert byte_spans(text, pieces, characters) == spans
