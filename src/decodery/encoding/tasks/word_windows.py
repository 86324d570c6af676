"""Divides long texts into windows that overlap and are cut between words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from decodery.errors import ParameterError, RequestError

Slice = tuple[int, int]


def chosen_overlap(overlap: int | None, capacity: int, default: int) -> int:
    """Returns how many tokens two windows of `capacity` tokens share.

    Without an `overlap` it is the default, or half of the capacity if that is less. Raises `RequestError` if
    no token fits and `ParameterError` for an overlap that leaves no place for others.
    """
    if capacity < 1:
        raise RequestError("no token of the text fits beside the others: shorten them")
    if overlap is None:
        return min(default, capacity // 2)
    if type(overlap) is not int or not 0 <= overlap < capacity:
        raise ParameterError(
            f"overlap must be a whole number below {capacity}, the tokens that fit into a window, not"
            f" {overlap!r}"
        )
    return overlap


def windows(count: int, cuts: Sequence[int], capacity: int, overlap: int) -> list[Slice]:
    """Returns slices of `count` tokens, each of at most `capacity`, that cover all of them.

    A window begins and ends at a token of `cuts`, those that begin a word, and two neighbours share
    `overlap` tokens or somewhat more. A word that is longer than a window is cut.
    """
    found: list[Slice] = []
    start = 0
    allowed = [cut for cut in cuts if 0 < cut < count]
    while start + capacity < count:
        end = _last(allowed, start + 1, start + capacity) or start + capacity
        found.append((start, end))
        start = _next_start(allowed, start, end, capacity, overlap, count)
    found.append((start, count))
    return found


def _next_start(cuts: Sequence[int], start: int, end: int, capacity: int, overlap: int, count: int) -> int:
    """Returns where the window after that from `start` to `end` begins.

    It must reach beyond the next word, so the two may share less than `overlap` tokens.
    """
    least = max(start + 1, (_first(cuts, end + 1, count) or count) - capacity)
    if least > end:
        return end
    return _last(cuts, least, end - overlap) or _first(cuts, least, end) or max(least, end - overlap)


def _last(cuts: Sequence[int], least: int, most: int) -> int | None:
    """Returns the last cut from `least` to `most`; None if there is none."""
    place = bisect_right(cuts, most)
    return cuts[place - 1] if place and cuts[place - 1] >= least else None


def _first(cuts: Sequence[int], least: int, most: int) -> int | None:
    """Returns the first cut from `least` to `most`; None if there is none."""
    place = bisect_left(cuts, least)
    return cuts[place] if place < len(cuts) and cuts[place] <= most else None
