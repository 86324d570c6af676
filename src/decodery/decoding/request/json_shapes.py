"""Reads JSON values as the types that parameters are declared with. Needs no torch."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

Read = Callable[[Any], Any]

DEEPEST = 100
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


class ShapeError(Exception):
    """Reports a JSON value of the wrong type: `path` leads to it, `expected` says what it must be."""

    def __init__(self, expected: str, path: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.path = path

    def inside(self, place: str) -> ShapeError:
        """Returns the error as seen from the value that has this one at `place`."""
        return ShapeError(self.expected, place + self.path)


@dataclass(frozen=True)
class Shape:
    """Reads one type of value: `kinds` are the types that json.loads gives it, `name` is for messages."""

    name: str
    kinds: tuple[type, ...]
    read: Read


def shape_of(hint: Any) -> Shape:
    """Returns the reader of a type hint; lists become tuples, as the hints have them.

    Whole numbers may be written as 2.0, which is the same number in JSON, and have at most 64 bits. Other
    numbers are finite. Texts have no lone surrogates.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of([shape_of(part) for part in parts])
    if origin is Literal:
        return _literal(parts)
    if origin is tuple:
        if parts[1:] == (...,):
            return _list(shape_of(parts[0]))
        return _fixed([shape_of(part) for part in parts])
    if origin is Mapping:
        return OBJECT
    return _PLAIN[hint]


def text(value: Any) -> str:
    """Returns a text. Raises `ShapeError` for another type, and for a lone surrogate in it."""
    if not isinstance(value, str):
        raise ShapeError("a text")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise ShapeError("a text without lone surrogates")
    return value


def whole(value: Any) -> int:
    """Returns a whole number. Raises `ShapeError` for another type and for more than 64 bits."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise ShapeError("a whole number")
    if not _SMALLEST <= value <= _LARGEST:
        raise ShapeError("a whole number of at most 64 bits")
    return value


def number(value: Any) -> float:
    """Returns a number as it is. Raises `ShapeError` for another type and unless it is finite."""
    if type(value) not in (int, float):
        raise ShapeError("a number")
    if not (math.isfinite(value) if type(value) is float else _SMALLEST <= value <= _LARGEST):
        raise ShapeError("a finite number")
    return value  # type: ignore[no-any-return]


def bias(value: Any) -> float:
    """Returns a bias of logits: a number, or minus infinity for the text "-inf"."""
    return -math.inf if value == "-inf" else number(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ShapeError("true or false")
    return value


def _null(value: Any) -> None:
    if value is not None:
        raise ShapeError("null")


def json_value(value: Any, depth: int = 0) -> Any:
    """Returns a JSON value as it is. Raises `ShapeError` if it is too deep, or has what JSON cannot hold."""
    if depth > DEEPEST:
        raise ShapeError(f"at most {DEEPEST} levels deep")
    if isinstance(value, str):
        text(value)
    elif type(value) is float:
        number(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            json_value(item, depth + 1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            text(key)
            json_value(item, depth + 1)
    elif value is not None and not isinstance(value, (bool, int)):
        raise ShapeError("a JSON value")
    return value


OBJECT = Shape("an object", (dict,), json_value)
TEXT = Shape("a text", (str,), text)
_PLAIN: dict[Any, Shape] = {
    bool: Shape("true or false", (bool,), _flag),
    int: Shape("a whole number", (int, float), whole),
    float: Shape("a number", (int, float), number),
    str: TEXT,
    type(None): Shape("null", (type(None),), _null),
    # The only fields of any type are second models, which a request names.
    Any: TEXT,
}


def _literal(values: tuple[Any, ...]) -> Shape:
    name = " or ".join(f'"{value}"' for value in values)

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in values:
            raise ShapeError(name)
        return value

    return Shape(name, (str,), read)


def _list(item: Shape) -> Shape:
    name = f"a list of {item.name.removeprefix('a ')}s" if item.name.startswith("a ") else "a list"

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise ShapeError(name)
        return tuple(_item(item.read, place, one) for place, one in enumerate(value))

    return Shape(name, (list, tuple), read)


def _fixed(items: list[Shape]) -> Shape:
    name = "a list of " + " and ".join(item.name for item in items)

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise ShapeError(name)
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_item(item.read, place, one) for place, (item, one) in pairs)

    return Shape(name, (list, tuple), read)


def _item(read: Read, place: int, value: Any) -> Any:
    try:
        return read(value)
    except ShapeError as error:
        raise error.inside(f"[{place}]") from None


def _one_of(shapes: list[Shape]) -> Shape:
    """Returns the reader of values that one of the shapes reads; the first that can does."""
    name = " or ".join(dict.fromkeys(shape.name for shape in shapes))

    def read(value: Any) -> Any:
        fitting = [shape for shape in shapes if type(value) in shape.kinds]
        if not fitting:
            raise ShapeError(name)
        for shape in fitting[:-1]:
            try:
                return shape.read(value)
            except ShapeError:
                pass
        return fitting[-1].read(value)

    kinds = tuple(kind for shape in shapes for kind in shape.kinds)
    return Shape(name, kinds, read)
