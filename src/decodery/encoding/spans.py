"""Finds the characters of a text that each of its tokens stands for."""

from __future__ import annotations

import re

from decodery.text.tokenizer.byte_spans import Span
from decodery.text.tokenizer.tokenizer import Tokenizer, without_surrogates


def character_spans(tokenizer: Tokenizer, text: str, *, lowers: bool = False) -> tuple[list[int], list[Span]]:
    """Returns the ids of a text without special tokens, and the span of each in its characters.

    A token that holds a part of a character has the span of the whole one. A span may begin with the space
    before a word. With `lowers`, the ids are those of the text in lower case. Raises `RequestError` when the
    vocabulary cannot express the text.
    """
    read = _characters(text)
    if lowers:
        read = [part.lower() for part in read]
    ids, spans = tokenizer.encode_spans("".join(read), add_special_tokens=False)
    if text.isascii():
        return ids, spans
    # The character of each byte, and one more for the end of the text.
    places = [place for place, part in enumerate(read) for _ in range(len(part.encode()))]
    places.append(len(text))
    return ids, [_whole(places, start, end) for start, end in spans]


PAIR_OR_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)


def lowered(text: str) -> str:
    """Returns a text in which each character is in lower case by itself, as tokenizers do it."""
    return "".join(character.lower() for character in text)


def _characters(text: str) -> list[str]:
    """Returns what is read of each character: a lone surrogate is U+FFFD, and a pair is read at its first."""
    found = []
    for part in PAIR_OR_CHARACTER.findall(text):
        found += [without_surrogates(part), ""][: len(part)]
    return found


def _whole(places: list[int], start: int, end: int) -> Span:
    first = places[start]
    return (first, first) if start == end else (first, places[end - 1] + 1)
