"""Flags made from the fields of dataclasses, and their values read from what a person writes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from decodery.errors import ParameterError

T = TypeVar("T")


@dataclass(frozen=True)
class Notation:
    """How a field's value is written: `read` takes all the texts given for it and raises ValueError."""

    metavar: str
    repeatable: bool
    read: Callable[[list[str]], Any]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a dataclass spread into one flag a field.

    A field's help is its `metadata["help"]`, its default that of the parameter's default value, and its
    `metadata["short"]`, if any, a second spelling.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()
    groups = {p.name: p.default for p in given if dataclasses.is_dataclass(hints[p.name])}
    parameters: list[inspect.Parameter] = []
    for parameter in given:
        if parameter.name in groups:
            parameters += _flags(parameter.default)
        else:
            hint = hints[parameter.name]
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, default in groups.items():
            own = {f.name: values.pop(f.name) for f in dataclasses.fields(default)}
            values[name] = changed(default, own)
        command(**values)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def changed(settings: T, texts: Mapping[str, Any]) -> T:
    """The dataclass `settings` with fields read from text.

    A field's text is a string, a list of strings where it may be repeated, or None, which leaves it as it is.
    Raises `ParameterError` naming the field.
    """
    hints = get_type_hints(type(settings))
    values = {}
    for name, text in texts.items():
        if name not in hints:
            raise ParameterError(f"unknown parameter: {name}")
        if isinstance(text, bool):
            values[name] = text
        elif text is not None and text != []:
            try:
                values[name] = notation(hints[name]).read([text] if isinstance(text, str) else list(text))
            except ValueError as error:
                raise ParameterError(f"{name} must be {error}") from None
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def _flags(default: Any) -> Iterable[inspect.Parameter]:
    hints = get_type_hints(type(default))
    for field in dataclasses.fields(default):
        flag = f"--{field.name.replace('_', '-')}"
        value = getattr(default, field.name)
        told = field.metadata["help"]
        hint: Any
        if hints[field.name] is bool:
            hint = Annotated[bool, typer.Option(f"{flag}/--no-{flag[2:]}", help=told)]
        else:
            how = notation(hints[field.name])
            names = [flag, *([field.metadata["short"]] if "short" in field.metadata else [])]
            told += " May be repeated." if how.repeatable else ""
            option = typer.Option(*names, metavar=how.metavar, help=told)
            hint = Annotated[list[str] if how.repeatable else str | None, option]
            value = [] if how.repeatable else None if value is None else str(value)
        yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=hint)


def notation(hint: Any) -> Notation:
    """How a value of this type is written. Raises `TypeError` for a type that has no notation."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [option for option in options if option is not types.NoneType]
    optional = len(kinds) < len(options)
    if any(get_origin(kind) in (Mapping, dict) for kind in kinds):
        return Notation("ID=VALUE", True, lambda texts: tuple(_pair(t) for t in texts))
    listed = [get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple]
    if listed:
        item = notation(listed[0])
        return Notation(item.metavar, True, lambda texts: _items(item, texts, apart=listed[0] is int))
    if all(dataclasses.is_dataclass(kind) for kind in kinds):
        return Notation("NAME", False, _single(lambda text: _object(text, kinds), optional))
    if len(kinds) == 1 and kinds[0] in _SCALARS:
        metavar, read = _SCALARS[kinds[0]]
        return Notation(metavar, False, _single(read, optional))
    raise TypeError(f"no way is known to write a {hint} as a flag")


def _single(read: Callable[[str], Any], optional: bool) -> Callable[[list[str]], Any]:
    def last(texts: list[str]) -> Any:
        return None if optional and texts[-1].lower() == "none" else read(texts[-1])

    return last


def _items(item: Notation, texts: list[str], *, apart: bool) -> tuple[Any, ...]:
    if apart:
        texts = [part for text in texts for part in text.split(",")]
    return tuple(item.read([text]) for text in texts)


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
    str: ("TEXT", str),
}


def _pair(text: str) -> tuple[int, float]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"written as ID=VALUE, not {text!r}")
    return _whole(key), _real(value)


def _object(text: str, kinds: list[Any]) -> Any:
    """An object of one of these dataclasses, written as `Name` or `Name(field=value, ...)`."""
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", text.strip())
    kind = next((k for k in kinds if match is not None and k.__name__ == match[1]), None)
    if match is None or kind is None:
        raise ValueError(f"{' or '.join(k.__name__ for k in kinds)}, not {text!r}")
    hints = get_type_hints(kind)
    values = {}
    for part in filter(None, re.split(r"\s*,\s*", (match[2] or "").strip())):
        name, equals, value = part.partition("=")
        if not equals or name not in hints:
            fields = ", ".join(f"{field}=..." for field in hints) or "no fields"
            raise ValueError(f"{kind.__name__} with {fields}, not {text!r}")
        values[name] = notation(hints[name]).read([value])
    return kind(**values)
