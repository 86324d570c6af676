"""Writes JSON schemas in the form of the grammar library, with the check of finished texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from decodery.decoding.grammar.errors import refusal
from decodery.decoding.grammar.llguidance_source import library_form
from decodery.decoding.json_schema.keywords import OLD_DRAFTS
from decodery.decoding.json_schema.references import targets_of
from decodery.decoding.json_schema.rewriting import Rewriting, fault_of
from decodery.decoding.json_schema.schema_check import SchemaCheck
from decodery.decoding.request.grammar_params import LOOSER, JsonSchema
from decodery.errors import ParameterError

# The library follows references by recursion, and an overflow of its stack cannot be caught.
_DEEPEST = 500


@dataclass(frozen=True, slots=True)
class SchemaForm:
    """Holds a JSON schema in the library's form, the check of finished texts, and warnings for the user.

    The form may allow texts that the check refuses.
    """

    form: str
    check: SchemaCheck
    warnings: tuple[str, ...]


def schema_form(grammar: JsonSchema) -> SchemaForm:
    """Returns the form of a schema.

    Raises `ParameterError` for a schema that matches no text, or that breaks the rules of JSON Schema. One
    that the library cannot follow exactly is refused too, unless it may be approximated.
    """
    text = str(grammar.schema)
    content = json.loads(text)
    if content is False:
        raise ParameterError("JsonSchema matches no text: the schema is false")
    try:
        check = SchemaCheck(text)
        targets = targets_of(check.schema, check.dialect)
        if _depth(check.schema, targets) > _DEEPEST:
            raise ParameterError(f"JsonSchema is nested more than {_DEEPEST} deep, its $refs followed")
        return _followed(check, targets, content, approximate=grammar.unsupported == "approximate")
    except RecursionError:
        raise ParameterError("JsonSchema is nested too deep") from None


def _followed(check: SchemaCheck, targets: dict[int, Any], content: Any, *, approximate: bool) -> SchemaForm:
    """Returns the form of the first rewriting that the library takes."""
    own = content.get("x-guidance", {}) if isinstance(content, dict) else {}
    head: dict[str, Any] = {"$schema": check.dialect}
    if own:
        head["x-guidance"] = own
    # Nothing of the third draft's own keywords is known to the library.
    faults: set[str] = {"types"} if "draft-03" in check.dialect else set()
    while True:
        rewriting = Rewriting(
            check.schema,
            targets,
            check.accepts,
            lambda part: _refusal_of(part, head),
            old=any(name in check.dialect for name in OLD_DRAFTS),
            faults=frozenset(faults),
        )
        written = rewriting.run()
        if rewriting.loosened and not approximate:
            raise ParameterError(_cannot(rewriting.loosened))
        reason = _refusal_of(written, head)
        if not reason:
            return SchemaForm(library_form(written, head), check, tuple(rewriting.warnings))
        fault = fault_of(reason)
        if fault is None or fault in faults:
            if not approximate or reason.startswith("Unsatisfiable") or "types" in faults:
                raise refusal("JsonSchema", reason)
            fault = "types" if "loose" in faults else "loose"
        faults.add(fault)


def _cannot(keywords: list[str]) -> str:
    named = ", ".join(keywords)
    return (
        f"JsonSchema has {named}, which no grammar follows exactly here:"
        f" {LOOSER} follows a looser schema and checks the finished text"
    )


def _refusal_of(schema: Any, head: dict[str, Any]) -> str:
    """Returns the library's reason not to take a rewritten schema; "" if it does."""
    if schema is False:
        return "Unsatisfiable schema: it is false"
    try:
        form = library_form(schema, head)
    except ValueError:
        return "it has a number beyond those of 64 bits"
    reason: str = LLMatcher.validate_grammar(form, None)
    return reason


def _depth(schema: Any, targets: dict[int, Any]) -> int:
    """Returns the depth of a descent into the schema that follows each reference once."""
    deepest = 0
    followed: set[int] = set()
    descent = [iter([schema])]
    while descent and deepest <= _DEEPEST:
        deepest = max(deepest, len(descent))
        for node in descent[-1]:
            inside = list(node.values()) if isinstance(node, dict) else node
            if isinstance(inside, list):
                target = targets.get(id(node))
                if target is not None and id(target) not in followed:
                    followed.add(id(target))
                    inside = [*inside, target]
                descent.append(iter(inside))
                break
        else:
            descent.pop()
    return deepest
