from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from decodery.decoding.request.grammar_params import JsonSchema
from tests.decoding.grammar.token_sequences import GRAMMARS, matches, random_text, unspell

WORDS = ("name", "b", "items", "value", "the", "é", "a b", '"', "日本")
PATTERNS = ("^[a-z]{2,4}$", "^(ab|abc)+$", "[0-9]{2}", "^x?[^a]y$")


def random_schema(source: random.Random, depth: int = 0, *, refs: bool = True) -> dict[str, Any]:
    """Returns a schema of the kinds that the validator below knows, which some value matches."""
    simple = [random_string, random_number, random_choice]
    if depth > 2:
        return source.choice(simple)(source)
    kind = source.random()
    if kind < 0.35:
        return source.choice(simple)(source)
    if kind < 0.6:
        return random_object(source, depth, refs=refs)
    if kind < 0.8:
        low = source.randint(0, 2)
        items = random_schema(source, depth + 1, refs=refs)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + source.randint(0, 2)}
    if kind < 0.92 or not refs:
        return {"anyOf": [random_schema(source, depth + 1, refs=refs) for _ in range(source.randint(2, 3))]}
    return {"$ref": f"#/$defs/{source.choice('uv')}"}


def random_object(source: random.Random, depth: int, *, refs: bool) -> dict[str, Any]:
    names = source.sample(WORDS, source.randint(0, 4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: random_schema(source, depth + 1, refs=refs) for name in names},
        "required": [name for name in names if source.random() < 0.5],
    }
    if source.random() < 0.7:
        schema["additionalProperties"] = False
    return schema


def random_string(source: random.Random) -> dict[str, Any]:
    if source.random() < 0.3:
        return {"type": "string", "pattern": source.choice(PATTERNS)}
    low = source.randint(0, 3)
    return {"type": "string", "minLength": low, "maxLength": low + source.randint(0, 5)}


def random_number(source: random.Random) -> dict[str, Any]:
    low = source.randint(-50, 50)
    return {
        "type": source.choice(("integer", "number")),
        "minimum": low,
        "maximum": low + source.randint(1, 300),
    }


def random_choice(source: random.Random) -> dict[str, Any]:
    return source.choice(
        (
            {"enum": ["red", "green", 7, None, [1, {"a": "é"}]]},
            {"const": {"b": [True, "\n"]}},
            {"type": "boolean"},
            {"type": ["null", "boolean"]},
        )
    )


def valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """True if a value matches a schema of the kinds that `random_schema` writes."""
    if "$ref" in schema:
        return valid(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return any(valid(value, option, root) for option in schema["anyOf"])
    if "enum" in schema:
        return any(same(value, option) for option in schema["enum"])
    if "const" in schema:
        return same(value, schema["const"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(is_kind(value, kind) for kind in kinds):
        return False
    if isinstance(value, str):
        long_enough = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        return long_enough and bool(re.search(schema.get("pattern", ""), value))
    if is_kind(value, "number"):
        return bool(schema["minimum"] <= value <= schema["maximum"])
    if isinstance(value, list):
        fits = schema["minItems"] <= len(value) <= schema["maxItems"]
        return fits and all(valid(item, schema["items"], root) for item in value)
    if isinstance(value, dict):
        known = schema["properties"]
        closed = schema.get("additionalProperties", True) is False
        return (
            all(name in value for name in schema["required"])
            and not (closed and set(value) - set(known))
            and all(valid(value[name], known[name], root) for name in known if name in value)
        )
    return True


def same(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def is_kind(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        whole = kind == "number" or (isinstance(value, (int, float)) and value == int(value))
        return isinstance(value, (int, float)) and not isinstance(value, bool) and whole
    return isinstance(
        value, {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}[kind]
    )


@pytest.mark.parametrize("part", range(10))
def test_texts_that_a_random_schema_allows_parse_and_are_valid(part: int) -> None:
    finished = 0
    for seed in range(50 * part, 50 * part + 50):
        source = random.Random(seed)
        schema = random_schema(source)
        schema["$defs"] = {name: random_schema(source, 1, refs=False) for name in "uv"}
        tokens, state = random_text(GRAMMARS.compile(JsonSchema(schema)), source, most=250)
        if not state.accepting:
            continue
        finished += 1
        value = json.loads(unspell(tokens))
        assert valid(value, schema, schema), (schema, value)
    assert finished > 15


def test_a_recursive_schema_is_followed() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "items": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
        },
    }
    assert matches(JsonSchema(tree), '{"value": 1, "items": [{"value": 2}, {"value": 3, "items": []}]}')
    assert not matches(JsonSchema(tree), '{"value": 1, "items": [{"items": []}]}')
