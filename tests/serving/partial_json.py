"""Reads JSON that was cut: what is whole of it, and if the rest may be the beginning of more."""

from __future__ import annotations

import json
import re
from typing import Any

_SPACE = r"[ \t\r\n]*"
_CHARACTERS = r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*'
# A string, of which the end may be missing; an escape may be cut too.
_OPEN_STRING = rf'"{_CHARACTERS}(?:"|\\(?:u[0-9a-fA-F]{{0,3}})?)?'
_OPEN_NUMBER = r"-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d*)?)?"
_OPEN_WORD = "t|tr|tru|true|f|fa|fal|fals|false|n|nu|nul|null"
_SCALAR = rf"(?:{_OPEN_STRING}|{_OPEN_NUMBER}|{_OPEN_WORD})"
_MEMBER = rf'(?:"{_CHARACTERS}"{_SPACE}:{_SPACE}{_SCALAR}|{_OPEN_STRING})'
# Keywords that more text can come to fulfil.
_LATER = (
    "required",
    "minItems",
    "minProperties",
    "contains",
    "minContains",
    "dependentRequired",
    "if",
    "then",
    "else",
)


def whole_part(text: str) -> tuple[bool, Any]:
    """Returns if any list or object has begun, and the value that is left when what is unfinished is removed.

    Raises `AssertionError` if the text is not the beginning of JSON.
    """
    for cut in range(len(text), -1, -1):
        opened = cut > 0 and text[cut - 1] in "[{"
        if not opened and (cut == len(text) or text[cut] not in ",]}"):
            continue
        closers = _closers(text[:cut])
        if closers is None:
            continue
        try:
            found = json.loads(text[:cut] + closers)
        except ValueError:
            continue
        assert _may_follow(text[cut:], closers, opened=opened), f"not a beginning of JSON: {text[cut:]!r}"
        return True, found
    assert re.fullmatch(rf"{_SPACE}{_SCALAR}{_SPACE}", text), f"not a beginning of JSON: {text!r}"
    return False, None


def _may_follow(rest: str, closers: str, *, opened: bool) -> bool:
    """True if a text may follow a value inside of lists and objects with these closing brackets.

    It may close some, and begin one member. With `opened`, it follows an opening bracket.
    """
    while closers and rest.lstrip(" \t\r\n").startswith(closers[0]):
        rest, closers, opened = rest.lstrip(" \t\r\n")[1:], closers[1:], False
    member = {"}": _MEMBER, "]": _SCALAR, "": ""}[closers[:1]]
    follows = f"(?:{member})?" if opened else f"(?:,{_SPACE}(?:{member})?)?" if closers else ""
    return re.fullmatch(f"{_SPACE}{follows}{_SPACE}", rest) is not None


def _closers(text: str) -> str | None:
    """Returns the brackets that are missing; None if the text ends inside a string."""
    stack: list[str] = []
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            stack.append("]" if character == "[" else "}")
        elif character in "]}" and (not stack or stack.pop() != character):
            return None
    return None if quoted else "".join(reversed(stack))


def without_later(schema: Any) -> Any:
    """Returns a schema that accepts what is whole of any text that the schema accepts."""
    if isinstance(schema, list):
        return [without_later(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for word, value in schema.items():
        if word in ("enum", "const", "default", "examples"):
            found[word] = value
        elif word in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
            found[word] = {name: without_later(one) for name, one in value.items()}
        elif word == "oneOf":
            found["anyOf"] = without_later(value)
        elif word not in _LATER and word != "not":
            found[word] = without_later(value)
    return found
