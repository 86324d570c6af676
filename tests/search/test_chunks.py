from __future__ import annotations

import random

import pytest

from decodery.errors import ModelError
from decodery.search.chunks import By, Chunk, Chunking

LINES = "one\n\n  two three \r\nfour\rfive"
PARAGRAPHS = "a b\nc\n \nd\n\n\n e\n"
PAGE = """---
title: not a heading
---
before

# Top
text
## Inner *one* `code`
inner
```
# not a heading
```
> # nor this

Under
-----
under
# Last
"""


def chunked(text: str, by: By = "auto", *, limit: int = 1000, markdown: bool = False) -> list[Chunk]:
    chunking = Chunking(by, limit, lambda part: len(part.split()))
    return list(chunking.chunks(text, markdown=markdown))


@pytest.mark.parametrize(
    ("text", "by", "found"),
    [
        (LINES, "lines", [(1, 1, "one"), (3, 3, "two three"), (4, 4, "four"), (5, 5, "five")]),
        (PARAGRAPHS, "paragraphs", [(1, 2, "a b\nc"), (4, 4, "d"), (7, 7, "e")]),
        ("x\u2028y\x0cz\x85", "lines", [(1, 1, "x\u2028y\x0cz")]),
        ("", "lines", []),
        (" \n\t\n", "paragraphs", []),
        ("a\n\nb", "sections", [(1, 3, "a\n\nb")]),
    ],
)
def test_chunks_have_their_text_and_their_lines(text: str, by: By, found: list[tuple[int, int, str]]) -> None:
    assert [(chunk.line, chunk.end_line, chunk.text) for chunk in chunked(text, by)] == found


def test_sections_of_markdown_are_below_the_headings_that_it_has() -> None:
    chunks = chunked(PAGE, markdown=True)
    assert [(chunk.line, chunk.heading) for chunk in chunks] == [
        (1, ""),
        (7, "Top"),
        (9, "Top > Inner one code"),
        (17, "Top > Under"),
        (18, "Last"),
    ]
    assert chunks[2].text == "inner\n```\n# not a heading\n```\n> # nor this"
    assert chunks[2].passage == "Top > Inner one code\n" + chunks[2].text
    assert chunks[4].text == "# Last"  # There is nothing below it.


def test_lines_of_markdown_know_their_heading_and_are_read_without_it() -> None:
    [chunk] = [chunk for chunk in chunked(PAGE, "lines", markdown=True) if chunk.text == "inner"]
    assert (chunk.line, chunk.heading, chunk.passage) == (9, "Top > Inner one code", "inner")


def test_a_long_chunk_is_divided_at_paragraphs_sentences_and_words_in_this_order() -> None:
    text = "# H\n\na b. c d.\n\ne f g. h i j k l m. n"
    assert [chunk.text for chunk in chunked(text, markdown=True, limit=6)] == [
        "a b. c d.",
        "e f g.",
        "h i j k l",
        "m. n",
    ]


def test_headings_above_are_shortened_where_they_take_too_much_of_a_chunk() -> None:
    text = "# a b c\n## d\ne\n"
    assert [chunk.above for chunk in chunked(text, markdown=True, limit=24)] == ["a b c\n", "a b c > d\n"]
    assert [chunk.above for chunk in chunked(text, markdown=True, limit=12)] == ["a b c\n", "d\n"]
    assert [chunk.above for chunk in chunked(text, markdown=True, limit=5)] == ["", "d\n"]


@pytest.mark.parametrize("by", ["lines", "paragraphs", "sections"])
def test_no_passage_exceeds_the_limit_and_no_character_is_lost(by: By) -> None:
    drawn = random.Random(5)
    # The count is not that of the parts: pieces of three characters, from the text's beginning on.
    chunking = Chunking(by, 7, lambda part: -(-len(part) // 3))
    for _ in range(50):
        text = "".join(drawn.choice("abcé漢\u0301 \n\n.#- ") for _ in range(drawn.randint(0, 200)))
        chunks = list(chunking.chunks(text, markdown=True))
        assert all(chunking.count(chunk.passage) <= 7 for chunk in chunks)
        if by != "sections":  # Headings are above the text of a section.
            assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
        lines = text.split("\n")
        for chunk in chunks:
            assert chunk.text in "\n".join(lines[chunk.line - 1 : chunk.end_line])


def test_a_character_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"a chunk may have 2 tokens, and the character '漢' has more"):
        list(Chunking("lines", 2, lambda part: len(part.encode())).chunks("漢", markdown=False))
