"""Divides a file into the chunks that search finds: lines, paragraphs or sections of Markdown."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt

from decodery.errors import ModelError

By = Literal["auto", "lines", "paragraphs", "sections"]
"""The chunks of a file; "auto" are sections of a Markdown file and paragraphs of any other."""

MARKDOWN_ENDS = (".md", ".markdown")
LINE_END = re.compile(r"\r\n|\n|\r")
FRONT_MATTER = re.compile(
    r"---[ \t]*(?:\r\n|\n|\r)(?:.*(?:\r\n|\n|\r))*?(?:---|\.\.\.)[ \t]*(?:\r\n|\n|\r|\Z)"
)
# Where a chunk that is too long is divided, the best places first: behind blank lines, sentences, words, and
# characters with the marks upon them.
BORDERS = tuple(
    map(
        re.compile,
        (
            r"(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*",
            r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|(?:\r\n|\n|\r)(?=\s*[-*+|#>])",
            r"\s+",
            r"(?!^)(?![\u0300-\u036f\u200d\ufe0f]|$)",
        ),
    )
)
# The headings above a section may have so large a part of a chunk's tokens.
MOST_OF_HEADINGS = 4

Span = tuple[int, int]
Count = Callable[[str], int]


@dataclass(frozen=True)
class Chunk:
    """Holds a chunk of a file: its first and last line from 1, the headings above it, and its text.

    `above` is written above the text when its vector is computed: headings, if it is a section. The text is
    that of the file's characters from `start` to `end`.
    """

    line: int
    end_line: int
    heading: str
    text: str
    above: str
    start: int
    end: int

    @property
    def passage(self) -> str:
        """Returns the text whose vector stands for the chunk."""
        return self.above + self.text


@dataclass(frozen=True)
class Chunking:
    """Divides texts by `by`; `count` returns a text's tokens, and no passage has more than `limit`.

    A longer chunk is divided behind blank lines, else between sentences, else between words.
    """

    by: By
    limit: int
    count: Count

    def chunks(self, text: str, *, markdown: bool) -> Iterator[Chunk]:
        """Yields the chunks of a file's text in their order; chunks of white space alone are left out.

        Raises `ModelError` if not even one character fits.
        """
        by = ("sections" if markdown else "paragraphs") if self.by == "auto" else self.by
        starts = [0, *(found.end() for found in LINE_END.finditer(text))]
        headings = list(_headings(text, starts)) if markdown or by == "sections" else []
        places = [heading.start for heading in headings]
        for span in _SPANS[by](text, starts, headings):
            place = bisect_right(places, span[0])
            heading = headings[place - 1].path if place else ""
            above = self._above(heading) if by == "sections" else ""
            for start, end in self._divided(text, _stripped(text, span), above, BORDERS):
                lines = bisect_right(starts, start), bisect_right(starts, end - 1)
                yield Chunk(*lines, heading, text[start:end], above, start, end)

    def _above(self, heading: str) -> str:
        """Returns what is written above a section's text: its headings, the last alone, or nothing."""
        for form in (heading, heading.rpartition(" > ")[2]):
            if form and self.count(f"{form}\n") <= self.limit // MOST_OF_HEADINGS:
                return f"{form}\n"
        return ""

    def _divided(self, text: str, span: Span, above: str, borders: Sequence[re.Pattern[str]]) -> list[Span]:
        """Returns parts of the span that fit below `above`, each as long as the borders allow."""
        start, end = span
        if start >= end:
            return []
        if self._fits(above + text[start:end]):
            return [span]
        if not borders:
            raise ModelError(
                f"a chunk may have {self.limit} tokens, and the character {text[start:end]!r} has more:"
                " choose a model with a larger context"
            )
        parts: list[Span] = []
        for part in _parts(text, span, borders[0]):
            parts += self._divided(text, part, above, borders[1:])
        return self._joined(text, parts, above)

    def _joined(self, text: str, parts: Sequence[Span], above: str) -> list[Span]:
        """Returns neighbouring parts as one where they fit together."""
        allowed = self.limit - self.count(above)
        counts = [self.count(text[start:end]) for start, end in parts]
        found: list[Span] = []
        first = 0
        while first < len(parts):
            last, total = first, counts[first]
            while last + 1 < len(parts) and total + counts[last + 1] <= allowed:
                last += 1
                total += counts[last]
            # Tokens of a whole may be more than those of its parts.
            while last > first and not self._fits(above + text[parts[first][0] : parts[last][1]]):
                last -= 1
            found.append((parts[first][0], parts[last][1]))
            first = last + 1
        return found

    def _fits(self, passage: str) -> bool:
        return self.count(passage) <= self.limit


class _Heading(NamedTuple):
    """Holds where a heading and the text below it begin, and it with those above it: "Search > Index"."""

    start: int
    below: int
    path: str


def _lines(text: str, starts: Sequence[int], headings: Sequence[_Heading]) -> Iterator[Span]:
    yield from zip(starts, [*starts[1:], len(text)], strict=True)


def _paragraphs(text: str, starts: Sequence[int], headings: Sequence[_Heading]) -> Iterator[Span]:
    begin: int | None = None
    for start, end in _lines(text, starts, headings):
        blank = not text[start:end].strip()
        if blank and begin is not None:
            yield begin, start
            begin = None
        elif not blank and begin is None:
            begin = start
    if begin is not None:
        yield begin, len(text)


def _sections(text: str, starts: Sequence[int], headings: Sequence[_Heading]) -> Iterator[Span]:
    """Yields the text below each heading, or the heading if there is none."""
    places = [heading.start for heading in headings]
    ends = [*places, len(text)]
    yield 0, ends[0]
    for heading, end in zip(headings, ends[1:], strict=True):
        yield heading.below if text[heading.below : end].strip() else heading.start, end


_SPANS = {"lines": _lines, "paragraphs": _paragraphs, "sections": _sections}


def _headings(text: str, starts: Sequence[int]) -> Iterator[_Heading]:
    """Yields the headings of a Markdown text, those in quotes and lists left out."""
    ends = [*starts, len(text)]
    front = FRONT_MATTER.match(text)
    begin = front.end() if front else 0
    skipped = bisect_right(starts, begin) - 1 if front else 0
    tokens = MarkdownIt().parse(text[begin:])
    path: list[tuple[int, str]] = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        rank = int(token.tag[1:])
        title = "".join(child.content for child in inline.children or ())
        path = [*((r, t) for r, t in path if r < rank), (rank, title)]
        start, below = (ends[line + skipped] for line in token.map)
        yield _Heading(start, below, " > ".join(title for _, title in path))


def _parts(text: str, span: Span, border: re.Pattern[str]) -> Iterator[Span]:
    start, end = span
    for found in border.finditer(text, start, end):
        if found.end() > start:
            yield _stripped(text, (start, found.end()))
            start = found.end()
    if start < end:
        yield _stripped(text, (start, end))


def _stripped(text: str, span: Span) -> Span:
    """Returns the span without the white space at its ends."""
    start, end = span
    whole = text[start:end]
    left = start + len(whole) - len(whole.lstrip())
    return left, max(left, start + len(whole.rstrip()))
