"""Finds the longest earlier occurrence of a text's last tokens."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

# Of the earlier occurrences of the last two tokens, so many are compared further back.
_COMPARED = 12
# A longer match says no more.
LONGEST = 16


class NgramIndex:
    """Holds tokens, and for each pair of neighbours where it occurred before."""

    def __init__(self) -> None:
        self.tokens = array("q")
        # The place of a pair is that of its second token.
        self._last: dict[int, int] = {}
        self._before = array("q")

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Appends tokens."""
        last, before = self._last, self._before
        place = len(self.tokens)
        previous = self.tokens[-1] if place else -1
        for token in tokens:
            pair = previous << 32 | token
            before.append(last.get(pair, -1))
            last[pair] = place
            previous = token
            place += 1
        self.tokens.extend(tokens)

    def before_end(self) -> int:
        """Returns the place of the latest earlier occurrence of the last two tokens, -1 if there is none."""
        return self._before[-1] if self._before else -1

    def latest(self, first: int, second: int) -> int:
        """Returns the place of the latest occurrence of two tokens, -1 if there is none."""
        return self._last.get(first << 32 | second, -1)

    def longest(self, known: array[int], place: int) -> tuple[int, int]:
        """Returns the end of the longest occurrence of the last tokens of `known`, and its length.

        Occurrences of the last two tokens are searched from `place` back; of equally long ones the latest is
        found. The length is at most `LONGEST`, and 0 if nothing is found.
        """
        tokens, count = self.tokens, len(known)
        end, best = 0, 0
        for _ in range(_COMPARED):
            if place < 0:
                break
            most = min(LONGEST, place + 1, count)
            length = 2
            while length < most and tokens[place - length] == known[count - 1 - length]:
                length += 1
            if length > best:
                end, best = place + 1, length
                if best == LONGEST:
                    break
            place = self._before[place]
        return end, best
