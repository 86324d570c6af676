"""Makes JSON schemas and tools at random: those that a server must follow, and those with a fault."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Schema = dict[str, Any]

# Texts that contain the marks of JSON, of calls of tools, and of the rest of Unicode.
TEXTS = (
    'a', '', 'two words', 'say "hi"', 'back\\slash', 'line\nbreak', 'tab\t', 'é😀', '}{', '"}]',
    '</tool_call>', '<tool_call>', '[TOOL_CALLS]', '<think>', '{{ x }}', 'null', '1', '\u2028', '\x7f',
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', "'", ', ', '$ref',
)  # fmt: skip
NAMES = (
    "a",
    "b",
    "c",
    "name",
    "size",
    "two words",
    "é",
    'a"b',
    "a\\b",
    "$id",
    "type",
    "properties",
    "x.y",
    "",
)
FORMATS = ("date", "time", "date-time", "email", "ipv4", "uuid")
PATTERNS = ("^[a-z]{1,4}$", "^(good|bad)$", "[0-9]", "^a.*b$", "^\\d{2}:\\d{2}$", "^$", '^[^"\\\\]{2}$')
SCALARS: tuple[Any, ...] = (None, True, False, 0, -1, 7, 1.5, 1e20, -0.25, *TEXTS)


class SchemaMaker:
    """Makes schemas from a source of random numbers."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def schema(self) -> Schema:
        """Returns a schema in which every keyword is one that a grammar can follow."""
        source = self._source
        found = self._any(source.choice((0, 1, 2, 3)))
        if source.random() < 0.25:
            return self._recursive()
        if source.random() < 0.25:
            found = {"anyOf": [found, {"$ref": "#/$defs/other"}], "$defs": {"other": self._any(1)}}
        return found

    def tool(self, name: str) -> dict[str, Any]:
        """Returns a tool whose parameters are such a schema, of few characters."""
        parameters = self._object(2)
        while len(json.dumps(parameters)) > 500:
            parameters = self._object(self._source.choice((0, 1, 2)))
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    def _any(self, depth: int) -> Schema:
        source = self._source
        kinds: list[Callable[[], Schema]] = [
            self._string, self._string, self._number, self._enum, self._enum, self._literal,
        ]  # fmt: skip
        if depth:
            kinds += [lambda: self._object(depth - 1)] * 5
            kinds += [lambda: self._array(depth - 1)] * 3
            kinds += [lambda: {"anyOf": [self._any(depth - 1) for _ in range(source.randint(1, 3))]}]
            kinds += [lambda: self._told_apart(depth - 1), lambda: self._all_of(depth - 1)]
        found = source.choice(kinds)()
        if source.random() < 0.1:
            found = {**found, "description": "What it is.", "title": "It", "default": 1, "examples": [1]}
        return found

    def _literal(self) -> Schema:
        return self._source.choice(({"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}))

    def _enum(self) -> Schema:
        source = self._source
        if source.random() < 0.3:
            return {"const": source.choice(SCALARS)}
        return {"enum": source.sample(SCALARS, source.randint(1, 4))}

    def _string(self) -> Schema:
        source = self._source
        kind = source.random()
        if kind < 0.25:
            return {"type": "string", "pattern": source.choice(PATTERNS)}
        if kind < 0.45:
            return {"type": "string", "format": source.choice(FORMATS)}
        least = source.randint(0, 4)
        bounds: Schema = {"minLength": least, "maxLength": least + source.randint(0, 8)}
        return {"type": "string", **({} if kind < 0.55 else bounds)}

    def _number(self) -> Schema:
        source = self._source
        kind = source.choice(("integer", "number"))
        least = source.choice((-1000, -1, 0, 3))
        bounds: Schema = {"minimum": least, "maximum": least + source.choice((0, 1, 20, 10**6))}
        if kind == "number" and source.random() < 0.3:
            bounds = {"exclusiveMinimum": least, "exclusiveMaximum": least + 2.5}
        if kind == "integer" and source.random() < 0.3:
            return {"type": kind, "multipleOf": source.choice((1, 3, 10)), "minimum": 0, "maximum": 90}
        return {"type": kind, **(bounds if source.random() < 0.8 else {})}

    def _object(self, depth: int) -> Schema:
        source = self._source
        names = source.sample(NAMES, source.randint(0, 4))
        found: Schema = {"type": "object", "properties": {name: self._any(depth) for name in names}}
        if names and source.random() < 0.8:
            found["required"] = source.sample(names, source.randint(1, len(names)))
        more = source.random()
        if more < 0.6:
            found["additionalProperties"] = False
        elif more < 0.75:
            found["additionalProperties"] = self._any(0)
        return found

    def _array(self, depth: int) -> Schema:
        source = self._source
        if source.random() < 0.2:
            items = [self._any(depth) for _ in range(source.randint(1, 3))]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        least = source.randint(0, 2)
        bounds = {"minItems": least, "maxItems": least + source.randint(0, 2)}
        return {"type": "array", "items": self._any(depth), **bounds}

    def _told_apart(self, depth: int) -> Schema:
        """Returns a `oneOf` of objects of which a constant says which one it is."""
        kinds = self._source.sample(("cat", "dog", "cow"), 2)
        return {"oneOf": [self._kind(kind, depth) for kind in kinds]}

    def _kind(self, kind: str, depth: int) -> Schema:
        return {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": self._any(depth)},
            "required": ["kind", "value"],
            "additionalProperties": False,
        }

    def _all_of(self, depth: int) -> Schema:
        first = {"type": "object", "properties": {"a": self._any(depth)}, "required": ["a"]}
        second = {"type": "object", "properties": {"b": self._any(depth)}, "required": ["b"]}
        return {"allOf": [first, second]}

    def _recursive(self) -> Schema:
        """Returns a list or a tree that refers to itself."""
        node: Schema = {
            "type": "object",
            "properties": {
                "value": self._any(0),
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
        if self._source.random() < 0.5:
            node["properties"]["next"] = {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}
        return {"$ref": "#/$defs/n", "$defs": {"n": node}}

    def faulty(self) -> Any:
        """Returns a schema with a fault, or one that a server may be unable to follow, at a random place."""
        fault = self._source.choice(FAULTS)
        value = fault() if callable(fault) else json.loads(json.dumps(fault))
        place = self._source.random()
        if place < 0.5 or not isinstance(value, dict):
            return value
        if place < 0.75:
            return {"type": "object", "properties": {"a": self._any(1), "b": value}, "required": ["b"]}
        return {"type": "array", "items": value, "minItems": 1, "maxItems": 2}


def _nested(levels: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


WRONG_TYPES: Sequence[Schema] = (
    {"type": 5}, {"type": "text"}, {"type": ["string", 5]}, {"type": []}, {"type": {}}, {"properties": []},
    {"properties": {"foo": "bar"}}, {"properties": "a"}, {"required": "a"}, {"required": [1]},
    {"items": 3}, {"items": [{"type": "string"}]}, {"enum": {}}, {"enum": 5}, {"anyOf": {}},
    {"oneOf": "a"}, {"allOf": [5]}, {"anyOf": [None]}, {"type": "string", "pattern": 5},
    {"type": "string", "minLength": "a"}, {"type": "string", "maxLength": -1},
    {"type": "string", "minLength": 1.5}, {"type": "integer", "maximum": "a"},
    {"type": "number", "multipleOf": 0}, {"type": "number", "multipleOf": -1},
    {"type": "array", "minItems": "a"}, {"additionalProperties": 5, "type": "object"}, {"$ref": 5},
    {"$defs": 5, "$ref": "#/$defs/a"}, {"type": "string", "format": 5},
    {"prefixItems": 5, "type": "array"}, {"x-guidance": 5}, {"x-guidance": {"whitespace_pattern": "(["}},
    {"patternProperties": {"([": {}}, "type": "object"},
)  # fmt: skip
IMPOSSIBLE: Sequence[Schema] = (
    {"enum": []}, {"anyOf": []}, {"oneOf": []}, {"allOf": []}, {"not": {}},
    {"type": "integer", "minimum": 3, "maximum": 2}, {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "array", "minItems": 3, "maxItems": 1},
    {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    {"allOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "object", "properties": {"a": False}, "required": ["a"]}, {"type": "integer", "enum": ["a"]},
    {"type": "object", "required": ["a"], "additionalProperties": False}, {"type": "string", "const": 5},
    {"type": "string", "pattern": "^a$", "minLength": 3}, {"type": "array", "items": False, "minItems": 1},
    {"type": "object", "minProperties": 3, "additionalProperties": False, "properties": {"a": {}}},
)  # fmt: skip
REFERENCES: Sequence[Schema] = (
    {"$ref": "#/$defs/none"}, {"$ref": "#"}, {"$ref": "#/$ref"}, {"$ref": "http://example.invalid/s.json"},
    {"$ref": "file:///etc/passwd"}, {"$ref": "other.json#/a"}, {"$ref": "#/$defs/%"}, {"$ref": ""},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"$id": "http://example.invalid/", "$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}},
    {"$dynamicRef": "#a", "$defs": {"a": {"$dynamicAnchor": "a"}}}, {"$recursiveRef": "#"},
)  # fmt: skip
WRONG_PATTERNS = (
    "^(|.*)$", "([", "(?=a)b", "a{1,100000}", "(a{1,999}){1,999}", "\\1(a)", "[z-a]", "*", "\\p{Nope}",
    "^(a?b?c?){1,90}x$", "(?i)a", "\x00", "$^", "a\\",
)  # fmt: skip
HUGE: Sequence[Callable[[], Any]] = (
    lambda: {"type": "string", "maxLength": 1_000_000},
    lambda: {"type": "string", "minLength": 900, "maxLength": 10**30},
    lambda: {"type": "integer", "maximum": 20_000_000_000},
    lambda: {"type": "integer", "minimum": -(10**40), "maximum": 10**40},
    lambda: {"type": "number", "minimum": 1e300},
    lambda: {"type": "array", "items": {"type": "null"}, "minItems": 100_000},
    lambda: {"enum": [f"word {i}" for i in range(8000)]},
    lambda: {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2000)}},
    lambda: {"type": "object", "required": [f"p{i}" for i in range(500)]},
    lambda: {"anyOf": [{"const": i} for i in range(3000)]},
    lambda: {"const": "x" * 100_000},
    lambda: {"description": "x" * 300_000},
    lambda: _nested(25, lambda inner: {"type": "array", "items": inner}, {"type": "null"}),
    lambda: _nested(20, lambda inner: {"type": "object", "properties": {"a": inner}, "required": ["a"]}, {}),
    lambda: _nested(12, lambda inner: {"oneOf": [inner, {"type": "null"}]}, {"type": "string"}),
    lambda: _nested(12, lambda inner: {"anyOf": [inner, {"type": "array", "items": inner}]}, {}),
    lambda: _nested(300, lambda inner: {"items": inner}, {}),
    lambda: {"allOf": [{"type": "object", "properties": {f"p{i}": {"enum": [i, -i]}}} for i in range(60)]},
)  # fmt: skip
UNSUPPORTED: Sequence[Schema] = (
    {"not": {"type": "string"}}, {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}},
    {"type": "array", "contains": {"const": 1}}, {"type": "object", "propertyNames": {"pattern": "^a$"}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"if": {"const": 1}, "then": {}, "else": {"const": 2}}, {"type": "object", "minProperties": 1},
    {"oneOf": [{"type": "object"}, {"type": "object"}]},
    {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]},
    {"unevaluatedProperties": False}, {"type": "string", "contentEncoding": "base64"},
    {"type": "string", "format": "hostname"}, {"unheard": 1}, {"type": "string", "format": "unheard-of"},
    {"nullable": True, "type": "string"}, {"type": "string", "format": "regex"},
    {"type": "object", "maxProperties": 1},
)  # fmt: skip
NO_SCHEMAS: Sequence[Any] = (5, "string", None, [], [{}], True, False, {}, "{}", 1.5)
FAULTS: tuple[Any, ...] = (
    *WRONG_TYPES, *IMPOSSIBLE, *REFERENCES, *({"type": "string", "pattern": p} for p in WRONG_PATTERNS),
    *HUGE, *UNSUPPORTED, *NO_SCHEMAS,
)  # fmt: skip
