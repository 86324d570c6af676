"""Reads numbers, token ids and prompts in the forms of numpy and torch. Needs neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plain(value: Any) -> Any:
    """Returns a number, array or tensor as Python's numbers and lists, and anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def listed_prompts(prompts: Any) -> list[Any]:
    """Returns the prompts of a call as a list.

    A text, a list or array of token ids and any other single object are one prompt; a matrix of token ids has
    one in each row.
    """
    prompts = plain(prompts)
    if not isinstance(prompts, Sequence) or isinstance(prompts, (str, bytes)):
        return [prompts]
    ids = bool(prompts) and isinstance(plain(prompts[0]), int)
    return [prompts] if ids else list(prompts)
