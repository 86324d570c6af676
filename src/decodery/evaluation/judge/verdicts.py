"""Reads the verdict in a judge's text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence


def read_verdict(text: str | None, allowed: Sequence[str]) -> str | None:
    """Returns the verdict of a judge's text, one of `allowed`, or None.

    A JSON object gives its `verdict`. In other text the last verdict counts: in double brackets, or after
    "verdict" and a colon, or else on the last line alone. A verdict is a whole word, in upper or lower case:
    "incorrect" is not "correct".
    """
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return _last(text, allowed)
    if not isinstance(found, dict):
        return None
    return _one(str(found.get("verdict")), allowed)


def _last(text: str, allowed: Sequence[str]) -> str | None:
    words = "|".join(sorted(map(re.escape, allowed), key=len, reverse=True))
    for pattern in (rf"\[\[\s*({words})\s*\]\]", rf"\bverdict\s*:\s*\W*({words})\b"):
        if matches := re.findall(pattern, text, re.IGNORECASE):
            return _one(matches[-1], allowed)
    last = text.strip().rpartition("\n")[2].strip(" .*`\"'")
    return _one(last, allowed)


def _one(word: str, allowed: Sequence[str]) -> str | None:
    return next((one for one in allowed if one.casefold() == word.strip().casefold()), None)
