"""Reports faults of what a client gives, by their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decodery.errors import RequestError

MAX_DEPTH = 64


def fault(message: str, place: str) -> RequestError:
    """Returns the error of a fault at this place, such as "messages[2].content"."""
    return RequestError(f"{place}: {message}", param=place)


def check_depth(value: Any, place: str) -> None:
    """Raises `RequestError` if lists and dicts are nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, (list, tuple)):
                inner += item
        level = inner
        if not level:
            return
    raise fault(f"this is nested more than {MAX_DEPTH} levels deep", place)
