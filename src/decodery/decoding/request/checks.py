"""Checks parameter values. Each function raises `ParameterError` naming the field. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from os import PathLike
from typing import Any

from decodery.errors import ParameterError
from decodery.text.streaming.stops import compile_regex
from decodery.token_ids import plain

# Logits are float32. A larger number, or a division by a smaller temperature, leaves its range.
LARGEST = 1e9
COLDEST = 1e-6


def normalise(params: Any, *, none: Iterable[str] = ()) -> None:
    """Sets the fields of a frozen dataclass that are not set, and makes those of numpy and torch Python's.

    None means not set, where the default is another value, except in the fields `none`.
    """
    for field in fields(params):
        value = getattr(params, field.name)
        if value is None and field.name not in none:
            object.__setattr__(params, field.name, field.default)
        elif hasattr(value, "tolist"):
            object.__setattr__(params, field.name, plain(value))


def whole(name: str, value: Any, low: int, high: int | None = None, *, none: bool = False) -> Any:
    """Returns a whole number in these bounds as an int; with `none`, None passes too."""
    if none and value is None:
        return None
    value = value if type(value) is int else plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterError(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        bound = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ParameterError(f"{name} must be {bound}, not {value}")
    return value


def real(name: str, value: Any, bound: str, holds: Callable[[float], bool], *, none: bool = False) -> None:
    """Raises unless `value` is a number of at most `LARGEST` in size for which `holds` is true.

    `bound` says in words what `holds` requires, for the message. With `none`, None passes too.
    """
    if none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParameterError(f"{name} must be a number, not {value!r}")
    if not abs(value) <= LARGEST or not holds(value):
        raise ParameterError(f"{name} must be {bound}, not {value}")


def flag(name: str, value: Any) -> None:
    """Raises unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ParameterError(f"{name} must be True or False, not {value!r}")


def token_ids(name: str, values: Any) -> tuple[int, ...]:
    """Returns a list or array of token ids as a tuple."""
    values = plain(values)
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ParameterError(f"{name} must be a list of token ids, not {values!r}")
    return tuple(whole(name, token, 0) for token in values)


def strings(name: str, value: Any) -> tuple[str, ...]:
    """Returns a string or a list of strings as a tuple; no string may be empty."""
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, Iterable) or isinstance(listed, bytes):
        raise ParameterError(f"{name} must be a string or a list of strings, not {value!r}")
    listed = tuple(listed)
    for string in listed:
        if not isinstance(string, str):
            raise ParameterError(f"{name} must hold strings, not {string!r}")
        if not string:
            raise ParameterError(f"{name} holds an empty string")
    return listed


def regex(name: str, value: Any) -> str | None:
    """Returns a regular expression of RE2 as given, which must not match the empty string; or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ParameterError(f"{name} must be a regular expression, not {value!r}")
    if compile_regex(name, value).search("") is not None:
        raise ParameterError(f"{name} {value!r} matches the empty string: every text would end at once")
    return value


def callables(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """Returns a function or a list of functions as a tuple."""
    if value is not None and not callable(value) and not isinstance(value, Iterable):
        raise ParameterError(f"{name} must be a list of functions, not {value!r}")
    listed = (value,) if callable(value) else tuple(value or ())
    for function in listed:
        if not callable(function):
            raise ParameterError(f"{name} must hold functions, not {function!r}")
    return listed


def phrase(name: str, value: Any) -> str | tuple[int, ...]:
    """Returns a text as it is, or a list of token ids as a tuple; neither may be empty."""
    found = value if isinstance(value, str) else token_ids(name, value)
    if not found:
        raise ParameterError(f"{name} holds an empty phrase")
    return found


def phrases(name: str, value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Returns a list of phrases as a tuple; a single text counts as one phrase."""
    value = plain(value)
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable):
        raise ParameterError(f"{name} must be a list of texts or of lists of token ids, not {value!r}")
    return tuple(phrase(name, item) for item in value)


def logit_bias(name: str, value: Any) -> tuple[tuple[int, float], ...]:
    """Returns a mapping or pairs of token id and bias as pairs sorted by id; -inf bans a token."""
    biases: dict[int, float] = {}
    for token, bias in _pairs(name, value):
        if isinstance(token, str) and token.isascii() and token.isdigit():
            token = int(token)
        token, bias = whole(name, token, 0), plain(bias)
        _bias(name, token, bias)
        if token in biases:
            raise ParameterError(f"{name} names token {token} twice")
        biases[token] = float(bias)
    return tuple(sorted(biases.items()))


def sequence_bias(name: str, value: Any) -> tuple[tuple[str | tuple[int, ...], float], ...]:
    """Returns a mapping or pairs of phrase and bias as pairs in the order given."""
    biases: dict[str | tuple[int, ...], float] = {}
    for key, bias in _pairs(name, value):
        found, bias = phrase(name, key), plain(bias)
        _bias(name, found, bias)
        if found in biases:
            raise ParameterError(f"{name} names {found!r} twice")
        biases[found] = float(bias)
    return tuple(biases.items())


def model(name: str, value: Any) -> None:
    """Raises unless `value` can name a second model: a path, a name or an LLM."""
    if not isinstance(value, (str, PathLike)) and not hasattr(value, "tokenizer"):
        raise ParameterError(f"{name} must be a path, a name or an LLM, not {value!r}")


def _pairs(name: str, value: Any) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        return [(key, bias) for key, bias in pairs]
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must map tokens to numbers, not {value!r}") from None


def _bias(name: str, key: Any, bias: Any) -> None:
    if isinstance(bias, bool) or not isinstance(bias, (int, float)):
        raise ParameterError(f"{name} of {_named(key)} must be a number, not {bias!r}")
    if not (abs(bias) <= LARGEST or bias == -math.inf):
        raise ParameterError(f"{name} of {_named(key)} must be finite or -inf, not {bias}")


def _named(key: Any) -> str:
    return f"token {key}" if isinstance(key, int) else repr(key)
