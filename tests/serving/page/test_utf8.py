"""Tests the page's modules that map bytes to characters, against Python."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.live import LiveServer
from tests.text.vocabularies import odd_strings, repaired

pytestmark = pytest.mark.page
FAMILY = "👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧"
TEXTS = ["", "a", f"é {FAMILY} 🇩🇪 b", "\ufeff\N{RIGHT-TO-LEFT OVERRIDE}x", *map(repaired, odd_strings(300))]


@pytest.fixture
def modules(page: Any, server: LiveServer) -> Any:
    """Returns a page of the server in which modules can be imported."""
    page.goto(server.url)
    return page


def indices(text: str) -> list[int]:
    """Returns the index in UTF-16 of the character of each byte, and the text's length."""
    found: list[int] = []
    at = 0
    for character in text:
        found += [at] * len(character.encode())
        at += len(character.encode("utf-16-le")) // 2
    return [*found, at]


def test_each_byte_of_a_text_has_the_index_of_its_character(modules: Any) -> None:
    found = modules.evaluate(
        "async (texts) => { const m = await import('/assets/core/utf8.js');"
        " return texts.map((t) => [[...m.indicesOfBytes(t)], m.byteLength(t), m.codePoints(t)]); }",
        TEXTS,
    )
    assert found == [[indices(text), len(text.encode()), len(text)] for text in TEXTS]


def test_a_span_of_bytes_is_shown_as_its_whole_characters(modules: Any) -> None:
    spans = [(text, a, b) for text in TEXTS[1:40] for a in range(0, 9) for b in range(a, 12)]
    spans = [(text, a, b) for text, a, b in spans if b <= len(text.encode())]
    found = modules.evaluate(
        "async (spans) => { const m = await import('/assets/core/utf8.js');"
        " return spans.map(([t, a, b]) => t.slice(...m.sliceOfSpan([a, b], m.indicesOfBytes(t)))); }",
        spans,
    )
    for (text, a, b), shown in zip(spans, found, strict=True):
        places = [place for place, c in enumerate(text) for _ in c.encode()]
        expected = text[places[a] : places[b - 1] + 1] if a < b else ""
        assert shown == expected


def test_half_a_surrogate_pair_is_read_as_the_server_reads_it(modules: Any) -> None:
    found = modules.evaluate(
        "async () => { const m = await import('/assets/core/utf8.js');"
        " return ['a\\ud83d', '\\ude00b', '\\ud83d\\ude00', '\\ufeffa'].map(m.wellFormed); }"
    )
    assert found == ["a\ufffd", "\ufffdb", "😀", "\ufeffa"]


def test_tokens_of_a_span_are_those_that_share_a_byte_with_it(modules: Any) -> None:
    spans = [[0, 0], [0, 2], [2, 3], [3, 3], [3, 7], [3, 7], [7, 9], [9, 9]]
    asked = [(a, b) for a in range(9) for b in range(a, 10)]
    found = modules.evaluate(
        "async ([spans, asked]) => { const m = await import('/assets/core/tokenizing.js');"
        " return asked.map((one) => m.tokensWithin(spans, one)); }",
        [spans, asked],
    )
    for (a, b), shown in zip(asked, found, strict=True):
        sharing = [i for i, (start, end) in enumerate(spans) if max(a, start) < min(b, end)]
        # A token without bytes that stands between two of them goes with them.
        assert shown == ([sharing[0], sharing[-1]] if sharing else None), (a, b)


@pytest.mark.parametrize(
    ("text", "index", "word", "rest"),
    [
        ("The doctor said", 4, "doctor", "The said"),
        ("The doctor said", 3, "doctor", "The said"),
        ("The doctor said", 0, "The", "doctor said"),
        ("The doctor said", 11, "said", "The doctor"),
        ("Yes, sir.", 6, "sir", "Yes,."),
        ("Yes, sir.", 3, ",", "Yes sir."),
        ("one", 0, "one", ""),
        ("don't go", 0, "don't", "go"),
        (f"a {FAMILY} b", 2, FAMILY, "a b"),
        ("x" * 10_000, 9_000, "x" * 10_000, ""),
        ("a\n\nb", 3, "b", "a\n"),
    ],
)
def test_a_word_is_found_and_goes_with_one_of_its_spaces(
    modules: Any, text: str, index: int, word: str, rest: str
) -> None:
    found = modules.evaluate(
        "async ([text, index]) => { const m = await import('/assets/core/words.js');"
        " const range = m.wordAt(text, index); return [text.slice(...range), m.without(text, range)]; }",
        [text, index],
    )
    assert found == [word, rest]
