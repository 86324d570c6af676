"""Reads numbers, token ids and prompts in the forms of numpy and torch. Needs neither."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any


def plain(value: Any) -> Any:
    """Returns a number, array or tensor as Python's numbers and lists, and anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def listed_prompts(prompts: Any) -> list[Any]:
    """Returns the prompts of a call as a list.

    A text, a list or array of numbers and any other single object are one prompt; a matrix of token ids has
    one in each row. An array of anything else but texts is one prompt too, which is none.
    """
    listed = plain(prompts)
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        return [listed]
    if listed is not prompts and not _has_prompts(listed):
        return [listed]
    one = bool(listed) and isinstance(plain(listed[0]), Number)
    return [listed] if one else list(listed)


def _has_prompts(listed: Any) -> bool:
    """True if the lists of an array are token ids or texts, in at most two dimensions."""
    dimensions, first = 0, listed
    while isinstance(first, list):
        dimensions += 1
        first = first[0] if first else None
    is_number = isinstance(first, Number)
    return dimensions <= 2 and (not is_number or (isinstance(first, int) and not isinstance(first, bool)))
