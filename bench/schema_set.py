"""Makes random JSON schemas over all keywords, and values that are close to what they accept."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Schema = Any
_NAMES = ("a", "b", "c", "ab")
_TEXTS = ("a", "b", "ab", "", "é", "2020-02-30", "127.0.0.1")
_PATTERNS = ("^a", "b$", "^(?!a)", "a(?=b)", "^[ab]*$", "^.{1,2}$")
_FORMATS = ("date", "ipv4", "password")
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def random_schema(source: random.Random, depth: int = 0) -> Schema:
    """Returns a schema of draft 2020-12 with two or three keywords on each level."""
    if depth > 2:
        return source.choice((True, {"type": source.choice(_TYPES)}, {"const": random_value(source, 2)}))
    schema: dict[str, Any] = {}
    if source.random() < 0.7:
        schema["type"] = source.choice(_TYPES)
    kinds = [source.choice(_KEYWORDS) for _ in range(source.randint(1, 3))]
    for keyword in kinds:
        schema |= keyword(source, depth + 1)
    return schema


def _bounds(name: str, most: int) -> Callable[[random.Random, int], dict[str, Any]]:
    return lambda source, depth: {name: source.randint(0, most)}


def _inner(name: str) -> Callable[[random.Random, int], dict[str, Any]]:
    return lambda source, depth: {name: random_schema(source, depth)}


def _several(name: str) -> Callable[[random.Random, int], dict[str, Any]]:
    return lambda source, depth: {name: [random_schema(source, depth) for _ in range(source.randint(1, 3))]}


def _named(name: str, keys: tuple[str, ...]) -> Callable[[random.Random, int], dict[str, Any]]:
    return lambda source, depth: {
        name: {key: random_schema(source, depth) for key in source.sample(keys, source.randint(1, 2))}
    }


def _object(source: random.Random, depth: int) -> dict[str, Any]:
    names = source.sample(_NAMES, source.randint(1, 3))
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(source, depth + 1) for name in names},
        "required": [name for name in names if source.random() < 0.4],
    }
    if source.random() < 0.6:
        found["additionalProperties"] = False
    return found


def _conditional(source: random.Random, depth: int) -> dict[str, Any]:
    return {name: random_schema(source, depth) for name in ("if", "then", "else") if source.random() < 0.8}


_KEYWORDS: tuple[Callable[[random.Random, int], dict[str, Any]], ...] = (
    *(_object, _object, _object, _conditional),
    *map(_inner, ("not", "items", "contains", "additionalProperties", "unevaluatedProperties")),
    *map(_inner, ("unevaluatedItems", "propertyNames")),
    *map(_several, ("allOf", "anyOf", "oneOf", "oneOf", "prefixItems")),
    _named("properties", _NAMES),
    _named("patternProperties", ("^a", "b$", "^(?!a)")),
    _named("dependentSchemas", _NAMES),
    *(_bounds(name, 2) for name in ("minItems", "maxItems", "minProperties", "maxProperties", "minLength")),
    *(_bounds(name, 3) for name in ("maxLength", "minimum", "maximum", "exclusiveMinimum", "minContains")),
    lambda source, depth: {"multipleOf": source.choice((1, 2, 0.25, 0.5))},
    lambda source, depth: {"uniqueItems": True},
    lambda source, depth: {"pattern": source.choice(_PATTERNS)},
    lambda source, depth: {"format": source.choice(_FORMATS)},
    lambda source, depth: {"enum": [random_value(source, 2) for _ in range(source.randint(1, 3))]},
    lambda source, depth: {"const": random_value(source, 2)},
    lambda source, depth: {"required": source.sample(_NAMES, source.randint(1, 2))},
    lambda source, depth: {"dependentRequired": {source.choice(_NAMES): [source.choice(_NAMES)]}},
    lambda source, depth: {"dependencies": {source.choice(_NAMES): [source.choice(_NAMES)]}},
)


def random_value(source: random.Random, depth: int = 0) -> Any:
    """Returns a small JSON value."""
    kind = source.randint(0, 6 if depth < 3 else 4)
    match kind:
        case 0:
            return None
        case 1:
            return source.random() < 0.5
        case 2:
            return source.randint(-1, 4)
        case 3:
            return source.choice((0.5, 1.0, 0.3, 2.5))
        case 4:
            return source.choice(_TEXTS)
        case 5:
            return [random_value(source, depth + 1) for _ in range(source.randint(0, 3))]
    names = source.sample(_NAMES, source.randint(0, 3))
    return {name: random_value(source, depth + 1) for name in names}


def value_near(source: random.Random, schema: Schema, depth: int = 0) -> Any:
    """Returns a value that the schema may well accept: one that takes a part of its keywords into account."""
    if not isinstance(schema, dict) or depth > 4 or source.random() < 0.1:
        return random_value(source, 2)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return source.choice(schema["enum"])
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema and source.random() < 0.5:
            return value_near(source, source.choice(schema[name]), depth + 1)
    kind = schema.get("type") or source.choice(_TYPES)
    if kind == "object":
        properties = schema.get("properties", {})
        wanted = [name for name in properties if source.random() < 0.6]
        # In the order of the schema, which is the one that a grammar follows.
        names = list(dict.fromkeys((*properties, *schema.get("required", ()))))
        chosen = [name for name in names if name in wanted or name in schema.get("required", ())]
        return {name: value_near(source, properties.get(name, True), depth + 1) for name in chosen}
    if kind == "array":
        items = schema.get("items", True)
        return [value_near(source, items, depth + 1) for _ in range(source.randint(0, 3))]
    numbers = source.choice((source.randint(0, 4), 0.5, 1.5) if kind == "number" else (source.randint(0, 4),))
    simple: dict[str, Any] = {"null": None, "boolean": source.random() < 0.5, "integer": numbers}
    return simple.get(kind, numbers if kind == "number" else source.choice(_TEXTS))


def odd_text(source: random.Random, value: Any) -> str:
    """Returns a JSON text of a value, sometimes with an escaped or a repeated key."""
    text = json.dumps(value, ensure_ascii=source.random() < 0.5)
    kind = source.random()
    if kind < 0.1:
        return text.replace('"a":', '"\\u0061":')
    if kind < 0.2:
        return text.replace('{"', '{"a": 1, "', 1)
    return text
