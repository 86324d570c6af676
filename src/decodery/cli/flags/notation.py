"""Reads the values of settings from text, by the type of the setting."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class Notation:
    """Holds how a value is written on the command line.

    `metavar` stands for it in the help. `read` returns the value of all the texts given for it; it raises
    `ValueError` for a wrong text. A `repeatable` one may be given several times.
    """

    metavar: str
    repeatable: bool
    read: Callable[[list[str]], Any]


def notation_of(hint: Any) -> Notation:
    """Returns how a value of this type is written. Raises `TypeError` for a type that has no notation.

    Numbers of a list may be separated by commas. Each text of a list is given on its own, since a text may
    contain commas.
    """
    kinds = _flat(hint)
    optional = types.NoneType in kinds
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    kinds = [kind for kind in kinds if get_origin(kind) is not Literal]
    if words:
        return _one_of([str(word) for word in words], kinds)
    if Any in kinds or (str in kinds and not any(_is_list_of(kind, str) for kind in kinds)):
        # No word can mean None here, since every word is a text.
        return Notation("TEXT", False, lambda texts: texts[-1])
    mapped = [get_args(kind)[0] for kind in kinds if get_origin(kind) in (Mapping, dict)]
    if mapped:
        key = notation_of(mapped[0])
        name = "ID" if mapped[0] is int else key.metavar
        return Notation(f"{name}=VALUE", True, lambda texts: tuple(_pair(key, name, t) for t in texts))
    if len(kinds) == 1 or any(_is_list_of(kind, str) for kind in kinds):
        listed = [kind for kind in kinds if get_origin(kind) is tuple]
        if listed:
            return _list(get_args(listed[0]), optional)
        if kinds[0] in _SCALARS:
            metavar, read = _SCALARS[kinds[0]]
            return Notation(metavar, False, _single(read, optional))
    raise TypeError(f"a value of type {hint} cannot be written as a flag")


def name_list(metavar: str) -> Notation:
    """Returns the notation of names in one text, separated by commas; "none" is None."""

    def split(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())

    return Notation(metavar, False, _single(split, True))


def _flat(hint: Any) -> list[Any]:
    """Returns the members of a union, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [kind for option in get_args(hint) for kind in _flat(option)]
    return [hint]


def _is_list_of(kind: Any, item: Any) -> bool:
    return get_origin(kind) is tuple and item in _flat(get_args(kind)[0])


def _one_of(known: list[str], others: list[Any]) -> Notation:
    """Returns the notation of one of the `known` words or a value of another type."""
    if not others:

        def word(text: str) -> str:
            if text not in known:
                raise ValueError(f"{' or '.join(known)}, not {text!r}")
            return text

        return Notation("|".join(known), False, _single(word, False))
    rest = notation_of(others[0])
    if others[0] is bool:
        known = ["true", "false", *known]
    metavar = "|".join(known) if others[0] is bool else "|".join([*known, f"{rest.metavar},..."])

    def word_or_value(text: str) -> Any:
        if text in known and text not in ("true", "false"):
            return text
        try:
            return rest.read([text])
        except ValueError as error:
            raise ValueError(f"{metavar.replace('|', ' or ')}, not {text!r}") from error

    return Notation(metavar, False, _single(word_or_value, False))


def _list(items: tuple[Any, ...], optional: bool) -> Notation:
    if items[-1] is not Ellipsis:
        parts = [notation_of(item) for item in items]
        metavar = ",".join(part.metavar for part in parts)
        return Notation(metavar, False, _single(lambda text: _parts(parts, metavar, text), optional))
    item = notation_of(items[0])

    def read(texts: list[str]) -> tuple[Any, ...]:
        if items[0] is int:
            texts = [part for text in texts for part in text.split(",")]
        return tuple(item.read([text]) for text in texts)

    return Notation(item.metavar, True, read)


def _parts(parts: list[Notation], metavar: str, text: str) -> tuple[Any, ...]:
    texts = text.split(",")
    if len(texts) != len(parts):
        raise ValueError(f"written as {metavar}, not {text!r}")
    return tuple(part.read([piece]) for part, piece in zip(parts, texts, strict=True))


def _single(read: Callable[[str], Any], optional: bool) -> Callable[[list[str]], Any]:
    def last(texts: list[str]) -> Any:
        return None if optional and texts[-1].lower() == "none" else read(texts[-1])

    return last


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a whole number, not {text!r}") from None


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a number, not {text!r}") from None


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"true or false, not {text!r}")
    return text.lower() == "true"


_SCALARS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("INTEGER", _whole),
    float: ("NUMBER", _real),
    bool: ("BOOLEAN", _switch),
}


def _pair(key: Notation, name: str, text: str) -> tuple[Any, float]:
    left, equals, value = text.rpartition("=")
    if not equals:
        raise ValueError(f"written as {name}=VALUE, not {text!r}")
    return key.read([left]), _real(value)
