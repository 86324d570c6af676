"""Checks what a metric is given: one error that names the argument, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import Any, NoReturn, TypeVar

from decodery.errors import ParameterError

Item = TypeVar("Item")


def refuse(name: str, message: str) -> NoReturn:
    """Raises a `ParameterError` for the argument `name`; `message` follows the name."""
    raise ParameterError(f"{name} {message}", param=name)


def listed(name: str, values: Iterable[Item]) -> list[Item]:
    """Returns the values as a list.

    Raises `ParameterError` if there are none, or if they have no order (a set), are a mapping, or are one
    text.
    """
    if isinstance(values, (str, bytes, Mapping, Set)) or not hasattr(values, "__iter__"):
        refuse(name, f"must be a list, one entry for each sample: it is a {type(values).__name__}")
    # Arrays become Python's own numbers: as labels, tensors are equal to nothing but themselves.
    found: list[Item] = values.tolist() if hasattr(values, "tolist") else list(values)
    if not found:
        refuse(name, "is empty: there is nothing to measure")
    return found


def same_length(**lists: Sequence[Any]) -> None:
    """Raises `ParameterError` unless all lists, named by the arguments, have the same length."""
    (first, one), *others = lists.items()
    for name, other in others:
        if len(one) != len(other):
            refuse(name, f"has {len(other)} entries and {first} {len(one)}: each sample needs one in both")


def is_truth(value: object) -> bool:
    """True if the value is a truth value of Python or numpy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")


def number(name: str, value: Any, *, truth: bool = False, infinite: bool = False) -> float:
    """Returns a value as a float.

    Raises `ParameterError` for NaN, for infinity without `infinite`, for a truth value without `truth`, and
    for everything that is not a number.
    """
    wrong = (
        isinstance(value, (str, bytes)) or not hasattr(value, "__float__") or (is_truth(value) and not truth)
    )
    try:
        result = math.nan if wrong else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if math.isnan(result) or (math.isinf(result) and not infinite):
        refuse(name, f"must be a finite number: {_short(value)}")
    return result


def numbers(name: str, values: Iterable[Any], *, truth: bool = False, infinite: bool = False) -> list[float]:
    """Returns the values as floats; raises `ParameterError` as `listed` and `number` do."""
    found = listed(name, values)
    return [
        number(f"{name}[{index}]", value, truth=truth, infinite=infinite) for index, value in enumerate(found)
    ]


def probabilities(name: str, values: Iterable[Any]) -> list[float]:
    """Returns the values as floats; raises `ParameterError` also for those outside 0 to 1."""
    found = numbers(name, values)
    for index, value in enumerate(found):
        if not 0 <= value <= 1:
            refuse(f"{name}[{index}]", f"must be a probability from 0 to 1: {value}")
    return found


def truths(name: str, values: Iterable[Any]) -> list[bool]:
    """Returns the values as truth values; raises `ParameterError` unless each is True, False, 1 or 0."""
    found = listed(name, values)
    for index, value in enumerate(found):
        if not is_truth(value) and number(f"{name}[{index}]", value) not in (0, 1):
            refuse(f"{name}[{index}]", f"must be True or False: {_short(value)}")
    return [bool(value) for value in found]


def count(name: str, value: Any, least: int = 0) -> int:
    """Returns a value as an int; raises `ParameterError` unless it is a whole number of at least `least`."""
    found = number(name, value)
    if found != int(found) or found < least:
        refuse(name, f"must be a whole number of at least {least}: {_short(value)}")
    return int(found)


def hashable(name: str, values: Iterable[Hashable]) -> list[Hashable]:
    """Returns the values as a list; raises `ParameterError` for one that cannot be a key, or that is NaN."""
    found = listed(name, values)
    for index, value in enumerate(found):
        try:
            hash(value)
        except TypeError:
            refuse(f"{name}[{index}]", f"must be a text or a number: {_short(value)}")
        if value != value:
            refuse(f"{name}[{index}]", "is NaN, which equals nothing")
    return found


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Returns the texts as a list; raises `ParameterError` for an entry that is no text."""
    found = listed(name, values)
    for index, value in enumerate(found):
        if not isinstance(value, str):
            refuse(f"{name}[{index}]", f"must be a text: {_short(value)}")
    return found


def chosen(name: str, value: str, options: Iterable[str]) -> str:
    """Returns the value; raises `ParameterError` unless it is one of the options."""
    known = tuple(options)
    if value not in known:
        refuse(name, f"must be one of {', '.join(known)}: {_short(value)}")
    return value


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
