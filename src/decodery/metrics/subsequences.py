"""Finds longest common subsequences of lists of words; an integer's bits are a row of the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence."""
    rows = _rows(one, other)
    return _length(rows[-1], len(other))


def common_places(one: Sequence[str], other: Sequence[str]) -> set[int]:
    """Returns the places in `one` of a longest common subsequence with `other`.

    Of several, it is the one that is found from the ends of both lists by moving back in `one` unless moving
    back in `other` keeps more: that of the ROUGE package.
    """
    rows, found = _rows(one, other), set()
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            found.add(i - 1)
            i, j = i - 1, j - 1
        elif _length(rows[i], j - 1) > _length(rows[i - 1], j):
            j -= 1
        else:
            i -= 1
    return found


def _rows(one: Sequence[str], other: Sequence[str]) -> list[int]:
    """Returns the rows: row i has a 0 at each word of `other` that lengthens the subsequence of one[:i].

    Hyyrö, Bit-Parallel LCS-length Computation Revisited (2004).
    """
    full = (1 << len(other)) - 1
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(other):
        places[word] |= 1 << place
    rows = [full]
    for word in one:
        row = rows[-1]
        matched = row & places.get(word, 0)
        rows.append(((row + matched) | (row - matched)) & full)
    return rows


def _length(row: int, end: int) -> int:
    """Returns the length of the common subsequence up to the word `end` of the other list."""
    return end - (row & ((1 << end) - 1)).bit_count()
