"""Says which input of a call an error is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from decodery.errors import DecoderyError


def numbered(index: int, count: int, name: str = "text") -> AbstractContextManager[None]:
    """Adds the place of an input, from 0, to errors about it, if it is one of several."""
    return named(f"{name} {index}" if count > 1 else None, f"texts[{index}]")


@contextmanager
def named(name: str | None, param: str) -> Iterator[None]:
    """Adds a name, if any, to errors about an input, and the argument that it is."""
    try:
        yield
    except DecoderyError as error:
        raise type(error)(str(error) if name is None else f"{name}: {error}", param=param) from None
