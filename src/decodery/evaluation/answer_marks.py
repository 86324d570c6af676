"""Finds the mark of an option in a text, and the probability that an answer is exactly one mark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# What may surround a mark: "(B)", "**B**", "[B]".
OPENING = r"[*(\[]*"
# A mark is neither the beginning of a word nor of a number such as 1.5 or 1,000.
ENDS = r"(?!\w|[.,]\d)"


def parsed_mark(text: str, marks: Sequence[str]) -> int | None:
    """Returns the place of the mark that a text gives as its answer, or None.

    A mark after "answer is" or "answer:" counts first, the last one of several. Then a mark that begins the
    text and is followed by punctuation or the end of its line; then the only mark of the text.
    """
    mark = "(" + "|".join(sorted(map(re.escape, marks), key=len, reverse=True)) + ")"
    named = re.findall(rf"(?i:answer(?:\s+is)?)\s*:?\s*{OPENING}{mark}{ENDS}", text)
    if named:
        return marks.index(named[-1])
    begun = re.match(rf"\s*{OPENING}{mark}{ENDS}(?=[ \t]*(?:[.):,\]*]|$))", text, re.MULTILINE)
    if begun:
        return marks.index(begun[1])
    found = set(re.findall(rf"(?<![\w.]){mark}{ENDS}", text))
    return marks.index(found.pop()) if len(found) == 1 else None


def exact_logprobs(ids: Sequence[Sequence[int]], logprobs: Sequence[float]) -> list[float]:
    """Returns the log-probability of each mark's tokens without those of longer marks that begin with them.

    "1" and "10" may be the tokens 1 and 1, 0. Then the probability of the answer 1 is that of its token less
    that of 10; otherwise 10 could never be the likelier one.
    """
    found = []
    for own, value in zip(ids, logprobs, strict=True):
        longer = [place for place, other in enumerate(ids) if _begins(own, other)]
        inside = sum(
            math.exp(logprobs[place] - value)
            for place in longer
            if value > -math.inf and not any(_begins(ids[other], ids[place]) for other in longer)
        )
        found.append(value + math.log1p(-inside) if inside < 1 else -math.inf)
    return found


def _begins(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) < len(other) and tuple(other[: len(one)]) == tuple(one)
