"""Writes dataclasses as plain JSON values, and reads them.

An object has the fields of its class that differ from their defaults. Floats are those of Python's `repr`, so
that they are read back bit for bit; infinities and NaN, which JSON lacks, are the texts "inf", "-inf" and
"nan". Bytes are texts in base64. Fields that a reader does not know are ignored.
"""

from __future__ import annotations

import binascii
import dataclasses
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Read = Callable[[Any], Any]

_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class FormError(ValueError):
    """Reports a value that is not the plain form of what is read."""


def to_plain(value: Any) -> Any:
    """Returns the plain form of a dataclass, of a list or tuple, or of a plain value."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if kind in (int, str, bool, types.NoneType):
        return value
    if kind is bytes:
        return binascii.b2a_base64(value, newline=False).decode("ascii")
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return plain_fields(value)


def plain_fields(value: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Returns the plain form of a dataclass without some of its fields."""
    plain = {}
    for name, default in _fields(type(value)):  # type: ignore[arg-type]
        if name in leave_out:
            continue
        one = getattr(value, name)
        # A float is written always: -0.0 equals a default of 0.0.
        if type(one) is float or one != default:
            plain[name] = to_plain(one)
    return plain


@cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in dataclasses.fields(kind))


def from_plain(kind: type[T], plain: Any) -> T:
    """Returns the object of a dataclass from its plain form. Raises `FormError`."""
    found: T = _reader(kind)(plain)  # type: ignore[arg-type]
    return found


@cache
def _reader(hint: Any) -> Read:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(parts)
    if origin is Literal:
        return _checked(lambda value: isinstance(value, str) and value in parts)
    if origin is tuple and parts[1:] != (...,):
        return _fixed([_reader(part) for part in parts])
    if origin in (tuple, list, Sequence):
        return _listed(_reader(parts[0]), list if origin is list else tuple)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _object(hint)
    if hint is float:
        return _float
    if hint is bytes:
        return _bytes
    if hint is Any:
        return _checked(lambda value: True)
    if hint is types.NoneType:
        return _checked(lambda value: value is None)
    if origin is Mapping:
        return _checked(lambda value: isinstance(value, dict))
    return _checked(lambda value: type(value) is hint)


def _checked(holds: Callable[[Any], bool]) -> Read:
    def read(value: Any) -> Any:
        if not holds(value):
            raise FormError("a value has another type")
        return value

    return read


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    if isinstance(value, str) and value in _NUMBERS:
        return _NUMBERS[value]
    raise FormError("a number has another type")


def _bytes(value: Any) -> bytes:
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormError("bytes are not written in base64") from None


def _listed(read: Read, kind: type) -> Read:
    def read_list(value: Any) -> Any:
        if not isinstance(value, list):
            raise FormError("a list has another type")
        return kind(map(read, value))

    return read_list


def _fixed(readers: Sequence[Read]) -> Read:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(readers):
            raise FormError("a list has another length")
        return tuple(read(one) for read, one in zip(readers, value, strict=True))

    return read


def _union(parts: Sequence[Any]) -> Read:
    """Returns the reader of a value that one of the types reads; the first that can does."""
    readers = [_reader(part) for part in parts]

    def read(value: Any) -> Any:
        for one in readers[:-1]:
            with suppress(FormError):
                return one(value)
        return readers[-1](value)

    return read


def _object(kind: type) -> Read:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise FormError(f"{kind.__name__} has another type")
        found = {name: readers[name](one) for name, one in value.items() if name in readers}
        try:
            return kind(**found)
        except TypeError:
            raise FormError(f"{kind.__name__} lacks a field") from None

    return read
