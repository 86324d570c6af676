"""Finds which properties and items of a value a schema has evaluated, for `unevaluatedProperties` and kin.

JSON Schema 2020-12, core, section 11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Search = Callable[[str, str], bool]


def unevaluated_properties(validator: Any, value: dict[str, Any], schema: Any, search: Search) -> list[str]:
    """Returns the properties that no keyword beside `unevaluatedProperties` has evaluated."""
    evaluated: set[str] = set()
    for _, part in _applied(validator, value, schema):
        declared = part.get("properties", {})
        patterns = part.get("patternProperties", {})
        if "additionalProperties" in part or (part is not schema and "unevaluatedProperties" in part):
            return []
        evaluated |= declared.keys() & value.keys()
        evaluated |= {name for name in value if any(search(pattern, name) for pattern in patterns)}
    return [name for name in value if name not in evaluated]


def unevaluated_items(validator: Any, value: list[Any], schema: Any, *, contains_counts: bool) -> list[int]:
    """Returns the places of items that no keyword beside `unevaluatedItems` has evaluated.

    `contains_counts` says that `contains` evaluates the items that it accepts, as from draft 2020-12 on.
    """
    evaluated: set[int] = set()
    for owner, part in _applied(validator, value, schema):
        items = part.get("items")
        prefix = items if isinstance(items, list) else part.get("prefixItems", [])
        rest = "additionalItems" in part if isinstance(items, list) else "items" in part
        if rest or (part is not schema and "unevaluatedItems" in part):
            return []
        evaluated |= set(range(len(prefix)))
        if contains_counts and "contains" in part:
            accepting = owner.evolve(schema=part["contains"])
            evaluated |= {place for place, item in enumerate(value) if accepting.is_valid(item)}
    return [place for place in range(len(value)) if place not in evaluated]


def _applied(validator: Any, value: Any, schema: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields the schemas that hold for a value itself with their validators, this one first."""
    if not isinstance(schema, dict):
        return
    yield validator, schema
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            found = validator._resolver.lookup(schema[keyword])
            inner = validator.evolve(schema=found.contents, _resolver=found.resolver)
            yield from _applied(inner, value, found.contents)
    for part in _holding(validator, value, schema):
        yield from _applied(validator.evolve(schema=part), value, part)


def _holding(validator: Any, value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            if validator.evolve(schema=part).is_valid(value):
                yield part
    if "if" in schema:
        if validator.evolve(schema=schema["if"]).is_valid(value):
            yield schema["if"]
            yield schema.get("then", True)
        else:
            yield schema.get("else", True)
    for name, part in schema.get("dependentSchemas", {}).items():
        if isinstance(value, dict) and name in value:
            yield part
