"""Finds what the references of a schema refer to. Nothing is ever fetched."""

from __future__ import annotations

from typing import Any

from decodery.decoding.json_schema.keywords import REFERENCES, subschemas
from decodery.errors import ParameterError


def targets_of(schema: Any, dialect: Any = None) -> dict[int, Any]:
    """Returns what each `$ref` and its kin refers to, by the id of the object that holds it.

    `dialect` is the name of its draft, if it is not one of the newest.

    The objects are those of the schema, which must be kept as long as the ids are used. The published
    metaschemas are known too. Raises `ParameterError` for a reference that leads nowhere, and for a name of a
    part that is no text.
    """
    if not isinstance(schema, dict):
        return {}
    # Imported here, since few schemas need them and they take long to import.
    from jsonschema_specifications import REGISTRY
    from referencing import Specification
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    named = dialect if isinstance(dialect, str) else ""
    draft: Specification[Any] = specification_with(named, default=DRAFT202012)
    _check_names(schema, "id" if any(old in named for old in ("draft-03", "draft-04")) else "$id")
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [(schema, REGISTRY.resolver_with_root(draft.create_resource(schema)))]
    while waiting:
        node, resolver = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        for keyword in REFERENCES:
            reference = node.get(keyword)
            if isinstance(reference, str):
                try:
                    resolved = resolver.lookup(reference)
                except (Unresolvable, ValueError, LookupError, TypeError):
                    raise ParameterError(_unresolved(keyword, reference)) from None
                found[id(node)] = resolved.contents
                waiting.append((resolved.contents, resolved.resolver))
        inner = [one for one in subschemas(node) if isinstance(one, dict)]
        waiting += [(one, resolver.in_subresource(draft.create_resource(one))) for one in inner]
    return found


def _check_names(schema: Any, keyword: str) -> None:
    """Raises `ParameterError` if a part of the schema has a name, the value of `keyword`, that is no text."""
    if isinstance(schema, dict) and not isinstance(schema.get(keyword, ""), str):
        raise ParameterError(f"JsonSchema is no JSON schema: a {keyword} must be a text")
    for part in subschemas(schema):
        _check_names(part, keyword)


def _unresolved(keyword: str, reference: str) -> str:
    shown = ascii(reference[:100])
    return f"JsonSchema has the {keyword} {shown}, which is no place in the schema; nothing is ever fetched"
