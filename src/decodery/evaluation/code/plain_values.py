"""Encodes plain Python values as JSON and decodes them, so that only data passes between two processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

SMALL = 1 << 63
ITEMS = 100_000
"""The number of items that are taken from an iterator."""
SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Opaque:
    """Stands for an object of another process that is no plain data. It equals nothing but itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<an object of type {self.kind}>"


def encoded(value: object, other: Callable[[object], object]) -> object:
    """Returns what `json.dumps` takes for a value.

    Plain are None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict,
    range, Fraction, Decimal, and iterators, of which the first 100,000 items are taken. An instance of a
    subclass becomes one of the plain class. For all else `other` returns the code, or raises.
    """
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return value if -SMALL < value < SMALL else ["int", hex(value)]
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [name, [encoded(item, other) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[encoded(key, other), encoded(item, other)] for key, item in value.items()]]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
    if isinstance(value, range):
        return ["range", [encoded(part, other) for part in (value.start, value.stop, value.step)]]
    if (type(value).__module__, type(value).__name__) in {("fractions", "Fraction"), ("decimal", "Decimal")}:
        return [type(value).__name__, str(value)]
    if isinstance(value, Iterator):
        return ["iterator", [encoded(item, other) for item in islice(value, ITEMS)]]
    return other(value)


def opaque(value: object) -> object:
    """Returns the code of an object that is no plain data: the name of its type."""
    return ["opaque", type(value).__name__]


def decoded(code: object) -> object:
    """Returns the value of a code; raises an Exception (of any type) if the code is none of `encoded`.

    The code may come from a hostile process: the result consists of the types above and of `Opaque` alone.
    """
    if code is None or isinstance(code, (bool, int, float, str)):
        return code
    if not isinstance(code, list):
        raise TypeError("this is no code of a value")
    name, data = code
    if name in SEQUENCES:
        return SEQUENCES[name](decoded(item) for item in data)
    if name == "dict":
        return {decoded(key): decoded(item) for key, item in data}
    if name == "range":
        return range(*(int(str(decoded(part))) for part in data))
    if name == "iterator":
        return iter([decoded(item) for item in data])
    if name == "complex":
        return complex(*data)
    if not isinstance(data, str):
        raise TypeError("this is no code of a value")
    return _from_text(name, data)


def _from_text(name: object, text: str) -> object:
    if name == "int":
        return int(text, 16)
    if name == "bytes":
        return bytes.fromhex(text)
    if name == "bytearray":
        return bytearray.fromhex(text)
    if name == "opaque":
        return Opaque(text[:80])
    if name == "Fraction":
        from fractions import Fraction

        return Fraction(text)
    if name == "Decimal":
        from decimal import Decimal

        return Decimal(text)
    raise ValueError("this is no code of a value")
