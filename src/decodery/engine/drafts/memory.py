"""Remembers earlier texts and the likeliest successors of tokens, for the requests of one salt."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from decodery.engine.drafts.ngram_index import NgramIndex

# Tokens of earlier texts, and entries of the table of successors, that are kept at most.
MOST_TOKENS = 32_768
MOST_SUCCESSORS = 65_536
# Between two texts, so that no match goes from one to the next.
_BORDER = -2


class Memory:
    """Holds the last texts and a table of likeliest successors; the oldest go first.

    Texts are kept in two halves: when the newer one is full, it takes the place of the older one.
    """

    def __init__(self) -> None:
        self._older, self._newer = NgramIndex(), NgramIndex()
        self._successors: dict[int, int] = {}

    def add_text(self, tokens: Sequence[int]) -> None:
        """Remembers the text of a request that has ended."""
        tokens = tokens[-MOST_TOKENS // 2 :]
        if len(self._newer) + len(tokens) > MOST_TOKENS // 2:
            self._older, self._newer = self._newer, NgramIndex()
        self._newer.extend(tokens)
        self._newer.extend((_BORDER,))

    def longest(self, known: array[int]) -> tuple[NgramIndex, int, int]:
        """Returns the texts with the longest occurrence of the last tokens of `known`, its end and length."""
        found = (self._newer, 0, 0)
        for index in (self._newer, self._older):
            end, length = index.longest(known, index.latest(known[-2], known[-1]))
            if length > found[2]:
                found = (index, end, length)
        return found

    def learn(self, previous: int, token: int, successor: int) -> None:
        """Takes note of the likeliest successor of two tokens, and of the second alone."""
        table = self._successors
        table[previous << 32 | token] = successor
        table[-1 - token] = successor
        while len(table) > MOST_SUCCESSORS:
            del table[next(iter(table))]

    def successor(self, previous: int, token: int) -> tuple[int | None, int]:
        """Returns the likeliest successor, and by how many of the tokens it is known: 2, 1 or 0."""
        found = self._successors.get(previous << 32 | token)
        if found is not None:
            return found, 2
        found = self._successors.get(-1 - token)
        return found, 0 if found is None else 1
