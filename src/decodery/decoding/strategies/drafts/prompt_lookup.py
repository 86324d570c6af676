"""Drafts by prompt lookup: the tokens that followed the same n-gram earlier."""

from __future__ import annotations

from array import array

import numpy as np


def lookup_draft(tokens: array[int], max_ngram: int, count: int) -> tuple[int, ...]:
    """Returns up to `count` tokens that followed an earlier occurrence of the n-gram that ends `tokens`.

    `tokens` are int64. n is the largest, up to `max_ngram`, for which there is an earlier occurrence. The
    latest occurrence with `count` tokens after it is used, or else the first (Saxena, Prompt Lookup Decoding,
    2023).
    """
    known = np.frombuffer(tokens, dtype=np.int64)
    ends = np.flatnonzero(known[:-1] == known[-1])
    for back in range(1, min(max_ngram, len(known))):
        longer = ends[ends >= back]
        longer = longer[known[longer - back] == known[-1 - back]]
        if not len(longer):
            break
        ends = longer
    if not len(ends):
        return ()
    enough = ends[ends < len(known) - count]
    start = int(enough[-1] if len(enough) else ends[0]) + 1
    return tuple(known[start : start + count].tolist())
