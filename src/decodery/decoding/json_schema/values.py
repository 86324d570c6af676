"""Reads JSON texts without loss, and compares the values as JSON Schema does."""

from __future__ import annotations

import json
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

# Deeper texts are refused: what checks them recurses.
DEEPEST = 100
# Python's own limit on the conversion of digits, which bounds its quadratic time.
_MOST_DIGITS = 4000
_HUGE = 10**17


class JsonFaultError(ValueError):
    """Reports a text that is not JSON ("json"), or nests deeper than `DEEPEST` ("depth")."""


def read_json(text: str) -> Any:
    """Returns the value of a JSON text.

    Numbers are exact: `int`, or `Decimal` if they have a fraction or an exponent or are very long. Of a key
    that is given twice the last value counts, as in json.loads. Raises `JsonFaultError`.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=_refuse)
    except RecursionError:
        raise JsonFaultError("depth") from None
    except (ValueError, ArithmeticError):
        raise JsonFaultError("json") from None
    if is_deep(value):
        raise JsonFaultError("depth")
    return value


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _MOST_DIGITS else Decimal(digits)


def _fraction(digits: str) -> Decimal:
    """Returns a number with a fraction or an exponent; an exponent that `Decimal` lacks becomes a huge one.

    No bound lies between the two, and both are multiples of the same numbers.
    """
    mantissa, _, exponent = digits.lower().partition("e")
    if len(exponent) < 18:
        return Decimal(digits)
    size = min(int(exponent.lstrip("+-").lstrip("0")[:19] or "0"), _HUGE)
    return Decimal(f"{mantissa}e{'-' if exponent.startswith('-') else ''}{size}")


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def is_deep(value: Any) -> bool:
    """True if lists and objects nest deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def key_of(value: Any) -> Hashable:
    """Returns a key that is equal for two values exactly if JSON Schema says that they are equal.

    1 and 1.0 are equal; 1 and true are not.
    """
    if isinstance(value, list):
        return ("list", tuple(key_of(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((name, key_of(item)) for name, item in value.items()))
    if isinstance(value, bool):
        return ("boolean", value)
    return ("float", Decimal(repr(value))) if isinstance(value, float) else value


def is_number(value: Any) -> bool:
    """True if this is a number, which `true` is not."""
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """True if this is a number without a fraction, such as 2.0."""
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return is_number(value) and (isinstance(value, int) or value.is_integer())


def is_multiple(value: int | Decimal, unit: int | Decimal) -> bool:
    """True if a number is an exact multiple of a positive one.

    The time depends on the digits of both, not on the size of their exponents.
    """
    first, first_exponent = _scaled(value)
    second, second_exponent = _scaled(unit)
    if first == 0 or second == 0:
        return first == 0
    shift = first_exponent - second_exponent
    if shift >= 0:
        return first * pow(10, shift, second) % second == 0
    # A number of that many digits has no more factors of ten.
    return -shift <= len(str(abs(first))) and first % (second * 10**-shift) == 0


def _scaled(value: int | Decimal) -> tuple[int, int]:
    """Returns the whole number and the exponent of ten whose product is a number."""
    if isinstance(value, int):
        return value, 0
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    whole = 0
    for digit in digits:
        whole = whole * 10 + digit
    return (-whole if sign else whole), exponent
