"""Declares Python functions as tools, by their type hints and docstrings in Google's style."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from decodery.text.chat.faults import fault

_SECTION = re.compile(r"^[ \t]*(Args|Arguments|Returns|Raises):[ \t]*", re.MULTILINE)
_ARGUMENT = re.compile(r"([ \t]*)\*{0,2}(\w+)[ \t]*(?:\([^)]*\))?:\s*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE | re.DOTALL)
_SCALARS: dict[type, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
_TYPES: dict[Any, dict[str, Any]] = {
    **{kind: {"type": name} for kind, name in _SCALARS.items()},
    **{list: {"type": "array"}, tuple: {"type": "array"}, dict: {"type": "object"}, Any: {}},
}


class _HintError(Exception):
    """Reports a type hint that has no schema."""


def declaration_of(function: Callable[..., Any], place: str) -> dict[str, Any]:
    """Returns a function as a tool in OpenAI's shape, with the schema that its type hints describe.

    The docstring has the description, those of the arguments under `Args:`, and, where a text ends in
    `(choices: ["a", "b"])`, the values that an argument may have. An argument with a default is optional.
    The schema is that of transformers' `get_json_schema`. Raises `RequestError` that says what is missing.
    """
    name = function.__name__

    def missing(what: str) -> NoReturn:
        raise fault(f"the function {name} {what}", place)

    text = (inspect.getdoc(function) or "").strip()
    if not text:
        missing("has no docstring, which describes it to the model")
    description, arguments, returned = _read_docstring(text)
    hints = _hints(function, missing)
    properties, required = {}, []
    for parameter in _parameters(function):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            missing(f"takes {parameter}: a tool can only have arguments with names")
        if parameter.name not in hints:
            missing(f"has no type hint for its argument {parameter.name!r}")
        if parameter.name not in arguments:
            missing(f"has no description of its argument {parameter.name!r} under Args: in its docstring")
        try:
            schema = _schema(hints[parameter.name])
            properties[parameter.name] = _described(schema, arguments[parameter.name])
        except _HintError as error:
            missing(f"has an argument {parameter.name!r} {error}")
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    found: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    if (result := _returned(hints, returned)) is not None:
        found["return"] = result
    return {"type": "function", "function": found}


def _hints(function: Callable[..., Any], missing: Callable[[str], NoReturn]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception as error:  # An annotation may be any expression.
        missing(f"has type hints that cannot be read: {error}")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters without the object or class of a method."""
    found = list(inspect.signature(function).parameters.values())
    implicit = found[:1] and found[0].name in ("self", "cls") and found[0].annotation is found[0].empty
    return found[1:] if implicit else found


def _returned(hints: dict[str, Any], text: str | None) -> dict[str, Any] | None:
    """Returns the schema of a function's result, or None if its hint has none: no model reads it."""
    if "return" not in hints:
        return None
    try:
        schema = _schema(hints["return"])
    except _HintError:
        return None
    return schema if text is None else {**schema, "description": text}


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Returns a schema with its description, and with the choices at the end of the text."""
    choices = _CHOICES.search(text)
    if choices is None:
        return {**schema, "description": text}
    try:
        listed = json.loads(choices.group(1))
    except ValueError:
        listed = None
    if not isinstance(listed, list):
        raise _HintError(f"whose choices are no JSON list: {choices.group(1)[:80]}")
    values = [value.strip() if isinstance(value, str) else value for value in listed]
    return {**schema, "enum": values, "description": text[: choices.start()].strip()}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return _plain_schema(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _enumeration(list(arguments))
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is tuple:
        if len(arguments) == 1 or ... in arguments:
            raise _HintError("with a tuple of one or of any number of items: use a list")
        return {"type": "array", "prefixItems": [_schema(item) for item in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    raise _HintError(_unknown(hint))


def _plain_schema(hint: Any) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enumeration([member.value for member in hint])
    try:
        return dict(_TYPES[hint])
    except (KeyError, TypeError):
        raise _HintError(_unknown(hint)) from None


def _unknown(hint: Any) -> str:
    return (
        f"of the type {getattr(hint, '__name__', hint)}, which has no JSON schema: use int, float, str, bool,"
        " Literal, Enum, list, tuple, dict and unions of them, or declare the tool as a dict"
    )


def _union(members: tuple[Any, ...]) -> dict[str, Any]:
    found = [_schema(member) for member in members if member is not type(None)]
    if len(found) == 1:
        schema = found[0]
    elif all(set(one) == {"type"} and isinstance(one["type"], str) for one in found):
        names = sorted({one["type"] for one in found})
        schema = {"type": names if len(names) > 1 else names[0]}
    else:
        schema = {"anyOf": found}
    return {**schema, "nullable": True} if type(None) in members else schema


def _enumeration(values: list[Any]) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise _HintError("whose values are not int, float, str, bool or None")
    names = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}


def _read_docstring(text: str) -> tuple[str, dict[str, str], str | None]:
    """Returns the description, the texts of the arguments, and that of the result."""
    description, *others = _SECTION.split(text)
    sections = dict(zip(others[::2], others[1::2], strict=True))
    arguments = _read_arguments(sections.get("Args", sections.get("Arguments", "")))
    returned = sections.get("Returns")
    return description.strip(), arguments, None if returned is None else returned.strip()


def _read_arguments(section: str) -> dict[str, str]:
    """Returns the text of each argument on one line; an argument's further lines are indented deeper."""
    found: dict[str, list[str]] = {}
    depth: int | None = None
    lines: list[str] = []
    for line in filter(str.strip, section.split("\n")):
        argument = _ARGUMENT.match(line)
        if argument is not None and (depth is None or len(argument[1]) <= depth):
            depth = len(argument[1]) if depth is None else depth
            lines = found[argument[2]] = [argument[3].strip()]
        else:
            lines.append(line.strip())
    return {name: " ".join(filter(None, parts)) for name, parts in found.items()}
