"""Finds the texts of added tokens in a text as the tokenizers library finds them, in Python's strings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken

_ENDS_WITH_WORD = re.compile(r"\w\Z")
_BEGINS_WITH_WORD = re.compile(r"\w")
# White space as Unicode defines it; Python counts four separators more.
_SPACE = re.compile(r"[^\S\x1c-\x1f]")
_NEVER = r"(?!)"


@dataclass(frozen=True, slots=True)
class Mark:
    """Holds the place of a token in a text, with the white space that the token takes."""

    start: int
    end: int
    token: int


class AddedFinder:
    """Finds added tokens from left to right, the longest of those that begin at a place.

    `added` are the tokens by their ids. A text is compared as it is, without the vocabulary's normalizer.
    """

    def __init__(self, added: Mapping[int, AddedToken]) -> None:
        self._tokens = {token.content: (place, token) for place, token in added.items() if token.content}
        lengths: dict[str, set[int]] = defaultdict(set)
        for text in self._tokens:
            lengths[text[:2]].add(len(text))
        # Few places of a text begin as a token does, and few lengths are possible there.
        self._lengths = {begin: sorted(found, reverse=True) for begin, found in lengths.items()}
        self._begins = re.compile("|".join(map(re.escape, sorted(lengths, key=len, reverse=True))) or _NEVER)

    def marks(self, text: str) -> Iterator[Mark]:
        """Yields the places of all added tokens in a text."""
        place = taken = 0
        while (begin := self._begins.search(text, place)) is not None:
            start = begin.start()
            found = self._longest(text, start)
            if found is None:
                place = start + 1
                continue
            place = start + len(found)
            identity, token = self._tokens[found]
            if token.single_word and not _is_separate(text, start, place):
                continue
            while token.lstrip and start > taken and _SPACE.fullmatch(text, start - 1, start):
                start -= 1
            while token.rstrip and _SPACE.match(text, place):
                place += 1
            taken = place
            yield Mark(start, place, identity)

    def _longest(self, text: str, start: int) -> str | None:
        begin = text[start : start + 2]
        for length in (*self._lengths.get(begin, ()), *self._lengths.get(begin[:1], ())):
            found = text[start : start + length]
            if found in self._tokens:
                return found
        return None


def _is_separate(text: str, start: int, end: int) -> bool:
    before = start > 0 and _ENDS_WITH_WORD.search(text[start - 1 : start])
    return not before and not _BEGINS_WITH_WORD.match(text[end : end + 1])
