"""Knows the keywords of JSON Schema whose values hold schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

IN_VALUE = frozenset(
    (
        *(
            "additionalItems",
            "additionalProperties",
            "contains",
            "contentSchema",
            "else",
            "if",
            "items",
            "not",
        ),
        *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
    )
)
IN_LIST = frozenset(("allOf", "anyOf", "items", "oneOf", "prefixItems"))
IN_MAP = frozenset(
    ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
)
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# The drafts in which the other keywords beside $ref are ignored, by a part of their names.
OLD_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07")


def subschemas(schema: Any) -> Iterator[Any]:
    """Yields the schemas that are values in a schema, those in definitions included."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if isinstance(value, list):
            if keyword in IN_LIST:
                yield from (one for one in value if isinstance(one, (dict, bool)))
        elif keyword in IN_MAP and isinstance(value, dict):
            yield from (one for one in value.values() if isinstance(one, (dict, bool)))
        elif keyword in IN_VALUE and isinstance(value, (dict, bool)):
            yield value


def escaped(part: object) -> str:
    """Returns a part of a JSON pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")
