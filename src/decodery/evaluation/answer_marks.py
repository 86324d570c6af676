"""Finds the mark of an option in a text, and the probability that an answer is exactly one mark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# What may surround a mark: "(B)", "**B**", "[B]".
OPENING, CLOSING = r"[*(\[]*", r"[*)\]]*"
# A mark is neither the beginning of a word nor of a number such as 1.5 or 1,000.
ENDS = r"(?!\w|[.,]\d|['\u2019-]\w)"
NAMES = (
    r"(?i:\banswer(?:\s+is)?|\b(?:option|choice|one)\s+is)(?P<denied>(?i:n['\u2019]t\b|\s+not\b))?\s*:?\s*"
)
# "not B", "neither B", "isn't option B".
DENIED_BEFORE = re.compile(
    r"(?i:\b(?:not|cannot|never|neither|nor|except)|n['\u2019]t)\s+(?i:be\s+)?(?i:option\s+|choice\s+)?[*(\[]*$"
)
DENIED_AFTER = re.compile(
    rf"{CLOSING}\s+(?i:is|was)(?i:n['\u2019]t|\s+(?:not|never|wrong|incorrect|false))\b", re.MULTILINE
)
# "A dog", "I think"; but "A is right" and "A because" have no article.
WORD = re.compile(r"[ \t]+(?!(?:because|since|as|is|and|or|but)\b)[a-z]")


def parsed_mark(text: str, marks: Sequence[str]) -> int | None:
    """Returns the place of the mark that a text gives as its answer, or None.

    A mark after "answer is", "answer:" or "option is" counts first, the last one of several. Then a mark that
    begins the text and is followed by punctuation or the end of its line; then the only mark of the text. A
    mark that the text denies ("not A", "B is wrong"), one of two ("A or B"), and the words "A" and "I" of a
    sentence ("A dog") are no answers.
    """
    mark = "(?P<mark>" + "|".join(sorted(map(re.escape, marks), key=len, reverse=True)) + ")"
    named = list(re.finditer(rf"{NAMES}{OPENING}{mark}{ENDS}", text))
    denied = {found["mark"] for found in named if found["denied"]}
    meant = [found for found in named if not found["denied"] and not _is_word(found)]
    if meant:
        last = meant[-1]["mark"]
        doubtful = last in denied or _is_denied(meant[-1]) or _is_one_of_two(meant[-1], mark)
        return None if doubtful else marks.index(last)
    begun = re.match(rf"\s*{OPENING}{mark}{ENDS}(?=[ \t]*(?:[.):,\]*]|$))", text, re.MULTILINE)
    if begun:
        doubtful = _is_denied(begun) or _is_one_of_two(begun, mark)
        return None if doubtful else marks.index(begun["mark"])
    found = list(re.finditer(rf"(?<![\w.]){mark}{ENDS}", text))
    only = {one["mark"] for one in found}
    if len(only) != 1 or any(map(_is_denied, found)) or all(map(_is_word, found)):
        return None
    return marks.index(only.pop())


def _is_word(found: re.Match[str]) -> bool:
    """True if a mark is the article or the pronoun that begins a sentence, which "is" before it does not."""
    within = re.search(r"\bis\s+[*(\[]*$", found.string[: found.start("mark")])
    return found["mark"] in ("A", "I") and not within and bool(WORD.match(found.string, found.end()))


def _is_denied(found: re.Match[str]) -> bool:
    before = found.string[: found.start("mark")]
    return bool(DENIED_BEFORE.search(before) or DENIED_AFTER.match(found.string, found.end()))


def _is_one_of_two(found: re.Match[str], mark: str) -> bool:
    """True if another mark follows with "or" or "and" between, or ends the list that this one begins."""
    between = r"(?:\s*[/&]\s*|,?\s+(?i:or|and)\s+(?i:option\s+)?)"
    other = f"{OPENING}{mark}{ENDS}".replace("?P<mark>", "?:")
    further = rf"{CLOSING}(?:{between}{other}(?!\s+is\b)|,\s*{other}{CLOSING}\s*(?:[.,]|$))"
    return re.compile(further).match(found.string, found.end()) is not None


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
