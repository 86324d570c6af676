"""Negates JSON schemas where the negation is a schema without `not`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from decodery.decoding.json_schema.formats import FORMATS
from decodery.decoding.json_schema.values import is_number, key_of

Schema = Any
TYPES = ("null", "boolean", "number", "string", "array", "object")
# The keywords that restrict values; all others are annotations, or belong to one of these.
_RESTRICTING = frozenset(
    (
        *(
            "$ref",
            "$dynamicRef",
            "$recursiveRef",
            "additionalItems",
            "additionalProperties",
            "allOf",
            "anyOf",
        ),
        *("const", "contains", "dependencies", "dependentRequired", "dependentSchemas", "enum", "format"),
        *("exclusiveMaximum", "exclusiveMinimum", "if", "items", "maxItems", "maxLength", "maxProperties"),
        *("maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "not", "oneOf"),
        *("pattern", "patternProperties", "prefixItems", "properties", "propertyNames", "required", "type"),
        *("unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
    )
)
_DEEPEST = 12
_MOST_OPTIONS = 24
_MOST_CHARACTERS = 400
# The keywords that together say what holds for the properties of an object.
_OBJECT = ("properties", "patternProperties", "additionalProperties")
# Keywords on whose presence the meaning of others depends.
_KEPT = frozenset((*_OBJECT, "exclusiveMinimum", "exclusiveMaximum"))


class Negation:
    """Negates schemas. `resolve` returns the target of the reference that an object is, or None."""

    def __init__(self, resolve: Callable[[dict[str, Any]], Schema | None]) -> None:
        self._resolve = resolve

    def of(self, schema: Schema, depth: int = 0) -> Schema | None:
        """Returns a schema of all values that this one does not accept; None if it cannot be written."""
        if isinstance(schema, bool):
            return not schema
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return None
        target = self._resolve(schema)
        if target is not None:
            return self.of(target, depth + 1)
        options = []
        for keyword, value in schema.items():
            if keyword not in _RESTRICTING or (keyword == "format" and value not in FORMATS):
                continue
            option = self._keyword(keyword, value, schema, depth)
            if option is None:
                return None
            options.append(option)
        return either(options)

    def beside(self, schema: Schema, other: Schema) -> Schema | None:
        """Returns the negation of a schema for values that another one accepts."""
        first, second = self._flat(schema), self._flat(other)
        if not isinstance(first, dict) or not isinstance(second, dict):
            return self.of(first)
        if self._apart(first, second):
            return True
        return self.of(_without_common(first, second))

    def _apart(self, first: dict[str, Any], second: dict[str, Any], depth: int = 0) -> bool:
        """True if the types, or the values of a property that both require, show that two schemas exclude
        each other.
        """
        values = [_listed(one) for one in (first, second)]
        if None not in values and not set(map(key_of, values[0] or [])) & set(map(key_of, values[1] or [])):
            return True
        if not _types(first) & _types(second):
            return True
        if depth > 1 or not (_types(first) & _types(second)) <= {"object"}:
            return False
        for name in {*first.get("required", ())} & {*second.get("required", ())}:
            ours, theirs = (self._flat(one.get("properties", {}).get(name)) for one in (first, second))
            if isinstance(ours, dict) and isinstance(theirs, dict) and self._apart(ours, theirs, depth + 1):
                return True
        return False

    def _flat(self, schema: Schema) -> Schema:
        for _ in range(_DEEPEST):
            target = self._resolve(schema) if isinstance(schema, dict) else None
            if target is None:
                break
            schema = target
        return schema

    def _keyword(self, keyword: str, value: Any, schema: Mapping[str, Any], depth: int) -> Schema | None:
        match keyword:
            case "not":
                return value
            case "anyOf":
                return _all([self.of(one, depth + 1) for one in value])
            case "allOf":
                found = [self.of(one, depth + 1) for one in value]
                return None if None in found else either(found)
            case "type":
                return _other_types(value)
            case "const":
                return other_values([value])
            case "enum":
                return other_values(value)
            case "required":
                return either([{"type": "object", "properties": {name: False}} for name in value])
            case "properties":
                return self._properties(value, depth)
            case _:
                return _opposite(keyword, value, schema)

    def _properties(self, properties: Mapping[str, Schema], depth: int) -> Schema | None:
        options = []
        for name, part in properties.items():
            negated = self.of(part, depth + 1)
            if negated is None:
                return None
            if negated is not False:
                options.append({"type": "object", "properties": {name: negated}, "required": [name]})
        return either(options)


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: Mapping[str, Any]) -> set[str]:
    """Returns the types of the values that a schema may accept; whole numbers are numbers."""
    given = schema.get("type", TYPES)
    names = {given} if isinstance(given, str) else set(given)
    return {"number" if name == "integer" else name for name in names}


def either(options: Sequence[Schema]) -> Schema | None:
    """Returns the schema of what one of these accepts; None if they are too many."""
    possible = [option for option in options if option is not False]
    if True in possible:
        return True
    if len(possible) > _MOST_OPTIONS:
        return None
    return {"anyOf": possible} if len(possible) > 1 else possible[0] if possible else False


def _all(parts: Sequence[Schema | None]) -> Schema | None:
    if any(part is None for part in parts):
        return None
    if any(part is False for part in parts):
        return False
    needed = [part for part in parts if part is not True]
    return {"allOf": needed} if len(needed) > 1 else needed[0] if needed else True


def _other_types(types: Any) -> Schema | None:
    given = {types} if isinstance(types, str) else set(types)
    if "integer" in given and "number" not in given:
        # Numbers with a fraction alone cannot be asked for.
        return None
    others = [name for name in TYPES if name not in given]
    return {"type": others} if others else False


def _opposite(keyword: str, value: Any, schema: Mapping[str, Any]) -> Schema | None:
    flags = [schema.get(name) for name in ("exclusiveMinimum", "exclusiveMaximum")]
    if any(isinstance(flag, bool) for flag in flags):
        return None
    match keyword:
        case "minimum":
            return {"type": "number", "exclusiveMaximum": value}
        case "maximum":
            return {"type": "number", "exclusiveMinimum": value}
        case "exclusiveMinimum":
            return {"type": "number", "maximum": value}
        case "exclusiveMaximum":
            return {"type": "number", "minimum": value}
        case "minLength":
            return {"type": "string", "maxLength": int(value) - 1} if value > 0 else False
        case "maxLength":
            return {"type": "string", "minLength": int(value) + 1}
        case "minItems":
            return {"type": "array", "maxItems": int(value) - 1} if value > 0 else False
        case "maxItems":
            return {"type": "array", "minItems": int(value) + 1}
        case "minProperties":
            return {"type": "object", "maxProperties": int(value) - 1} if value > 0 else False
        case "maxProperties":
            return {"type": "object", "minProperties": int(value) + 1}
        case _:
            return None


def other_values(values: Sequence[Any]) -> Schema | None:
    """Returns a schema of all values but these; None if one of them is a list or an object."""
    if any(isinstance(value, (list, dict)) for value in values):
        return None
    texts = [value for value in values if isinstance(value, str)]
    numbers = sorted({value for value in values if is_number(value)})
    truths = [value for value in values if isinstance(value, bool)]
    touched = {"string": texts, "number": numbers, "boolean": truths, "null": None in values}
    options: list[Schema | None] = [{"type": [name for name in TYPES if not touched.get(name)]}]
    if texts:
        pattern = other_texts(texts)
        options.append(None if pattern is None else {"type": "string", "pattern": pattern})
    if numbers:
        options.append({"type": "number", "exclusiveMaximum": numbers[0]})
        options.append({"type": "number", "exclusiveMinimum": numbers[-1]})
        pairs = pairwise(numbers)
        options += [{"type": "number", "exclusiveMinimum": a, "exclusiveMaximum": b} for a, b in pairs]
    if truths:
        options.append({"enum": [truth for truth in (False, True) if truth not in truths]})
    return None if None in options else either([one for one in options if one != {"enum": []}])


def other_texts(texts: Sequence[str]) -> str | None:
    """Returns a regular expression of all texts but these; None if they are too long."""
    if sum(map(len, texts)) > _MOST_CHARACTERS or any("\ud800" <= c <= "\udfff" for t in texts for c in t):
        return None
    return f"^(?:{_others(sorted(set(texts)), 0)})$"


def _others(texts: Sequence[str], at: int) -> str:
    """Returns what may follow after `at` characters that all these texts share."""
    following = sorted({text[at] for text in texts if len(text) > at})
    options = [] if any(len(text) == at for text in texts) else [""]
    if following:
        options.append(f"[^{''.join(map(_code, following))}](?s:.*)")
    else:
        options.append("(?s:.+)")
    for character in following:
        inner = _others([text for text in texts if text[at : at + 1] == character], at + 1)
        options.append(f"{_code(character)}(?:{inner})")
    return "|".join(options)


def _code(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"


def _without_common(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema without keywords that the other one has too."""
    left = {
        keyword: value
        for keyword, value in schema.items()
        if keyword in _KEPT or keyword not in other or not _same(value, other[keyword])
    }
    if _names(schema) == _names(other):
        ours, theirs = schema.get("properties", {}), other.get("properties", {})
        if "properties" in left:
            left["properties"] = {n: part for n, part in ours.items() if not _same(part, theirs[n])}
        for keyword in _OBJECT[1:]:
            if keyword in left and keyword in other and _same(left[keyword], other[keyword]):
                del left[keyword]
    return left


def _names(schema: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(schema.get("properties", ())), frozenset(schema.get("patternProperties", ()))


def _same(value: Any, other: Any) -> bool:
    return value is other or key_of(value) == key_of(other)
