"""Estimates how likely drafts are right, by their source and the length of the match."""

from __future__ import annotations

from collections.abc import Sequence

SOURCES = ("text", "earlier texts", "successors")
# Matches of lengths up to these are counted together; the last place is for all longer ones.
_LENGTHS = (2, 3, 4, 6, 9, 15)
PLACES = len(_LENGTHS) + 1
# What is expected before anything is learned.
_TEXT = (0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.95)
_EARLIER = (0.35, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
# By the last token alone, and by the last two.
_SUCCESSORS = (0.25, 0.5)
FIRST = (*_TEXT, *_EARLIER, *_SUCCESSORS)
_PLACE_OF_LENGTH = [next((i for i, most in enumerate(_LENGTHS) if n <= most), PLACES - 1) for n in range(64)]


def place_of(source: int, length: int) -> int:
    """Returns the place, in the table of confidences, of a source (an index of `SOURCES`) and a length.

    The length is that of the match, and for successors the number of tokens they are known by.
    """
    if source == 2:
        return 2 * PLACES + length - 1
    return source * PLACES + _PLACE_OF_LENGTH[min(length, 63)]


def source_of(place: int) -> str:
    """Returns the source whose drafts are counted at a place."""
    return SOURCES[place // PLACES]


class Confidence:
    """Holds for each place how often a draft was right, as a mean over about the last `memory` drafts.

    It starts from `first`, which counts as `weight` drafts.
    """

    def __init__(self, first: Sequence[float] = FIRST, *, weight: float = 4.0, memory: float = 200.0) -> None:
        self.values = list(first)
        self._weights = [weight] * len(self.values)
        self._memory = memory

    def learn(self, place: int, right: bool) -> None:
        """Takes note of a draft that was right or not."""
        weight = min(self._weights[place] + 1, self._memory)
        self._weights[place] = weight
        self.values[place] += (right - self.values[place]) / weight
