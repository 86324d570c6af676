"""Makes validators of the jsonschema library whose functions are bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from jsonschema import (
    Draft4Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    validators,
)
from jsonschema.exceptions import SchemaError, ValidationError

from decodery.decoding.json_schema.formats import FORMATS
from decodery.decoding.json_schema.keywords import escaped
from decodery.decoding.json_schema.patterns import Patterns
from decodery.decoding.json_schema.unevaluated import unevaluated_items, unevaluated_properties
from decodery.decoding.json_schema.values import is_multiple, is_number, is_whole, key_of
from decodery.errors import ParameterError

_LONGEST_POINTER = 100
# The library's published types lack a part of what these take.
_EXTEND: Any = validators.extend
_VALIDATOR_FOR: Any = validators.validator_for
# A schema that names no draft is one of the newest of these whose rules it keeps.
_DRAFTS: tuple[Any, ...] = (Draft202012Validator, Draft201909Validator, Draft7Validator, Draft4Validator)
_OLDEST = ("draft-03", "draft-04")
# Keywords that compare a value of one type with a bound.
_BOUNDS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda value, bound: value >= bound),
    "maximum": ("number", lambda value, bound: value <= bound),
    "exclusiveMinimum": ("number", lambda value, bound: value > bound),
    "exclusiveMaximum": ("number", lambda value, bound: value < bound),
    "multipleOf": ("number", is_multiple),
    "minLength": ("string", lambda value, bound: len(value) >= bound),
    "maxLength": ("string", lambda value, bound: len(value) <= bound),
    "format": ("string", lambda value, name: name not in FORMATS or FORMATS[name](value)),
    "minItems": ("array", lambda value, bound: len(value) >= bound),
    "maxItems": ("array", lambda value, bound: len(value) <= bound),
    "uniqueItems": ("array", lambda value, on: not on or len({key_of(one) for one in value}) == len(value)),
    "minProperties": ("object", lambda value, bound: len(value) >= bound),
    "maxProperties": ("object", lambda value, bound: len(value) <= bound),
    "required": ("object", lambda value, names: all(name in value for name in names)),
}

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


def draft_of(schema: Any) -> Any:
    """Returns the class of jsonschema for the draft of a schema.

    Raises `ParameterError`, with the place, for a schema that breaks the rules of the draft that it names or,
    if it names none, of all drafts.
    """
    named = _named_draft(schema)
    first: SchemaError | None = None
    for draft in _DRAFTS if named is None else (named,):
        try:
            # Formats are no rules: patterns are not those of Python.
            draft.check_schema(schema, format_checker=None)
            if named is None and draft is not _DRAFTS[0]:
                # An older draft knows fewer keywords, and lets wrong values of the others pass.
                _DRAFTS[0].check_schema(_renewed(schema), format_checker=None)
        except SchemaError as error:
            first = first or error
        except RecursionError:
            return draft
        else:
            return draft
    assert first is not None
    pointer = "".join(f"/{escaped(part)}" for part in first.absolute_path)[:_LONGEST_POINTER]
    raise ParameterError(
        f"JsonSchema is no JSON schema: {first.validator} of its rules fails at {pointer or '/'}"
    )


def _named_draft(schema: Any) -> Any:
    """Returns the class of the draft that a schema names; None if it names none that is known."""
    if isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str):
        return None
    try:
        return _VALIDATOR_FOR(schema, default=None)
    except ValueError:
        raise ParameterError("JsonSchema is no JSON schema: format of its rules fails at /$schema") from None


def _renewed(schema: Any) -> Any:
    """Returns a schema without what the newest draft forbids and older ones allow."""
    if isinstance(schema, list):
        return [_renewed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _renewed(value) for name, value in schema.items()}
    if isinstance(found.get("items"), list):
        found["items"] = {"allOf": found["items"] or [True]}
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(found.get(name), bool):
            del found[name]
    return found


def keyword_of(error: ValidationError) -> str:
    """Returns the keyword of an error; that of a schema `false` is the one that holds it."""
    if isinstance(error.validator, str):
        return error.validator
    names = [part for part in error.absolute_schema_path if isinstance(part, str)]
    known = [name for name in names if name in Draft202012Validator.VALIDATORS]
    return known[-1] if known else "false"


def validator_class(draft: Any, patterns: Patterns, spend: Callable[[], None]) -> Any:
    """Returns a class of validators for schemas of this draft; `spend` is called at each keyword."""
    oldest = any(name in draft.META_SCHEMA.get("$schema", "") for name in _OLDEST)
    functions: dict[str, Keyword] = {**draft.VALIDATORS}
    functions.setdefault("dependencies", Draft7Validator.VALIDATORS["dependencies"])
    own: dict[str, Keyword] = {
        **{name: partial(_bound, *rule) for name, rule in _BOUNDS.items()},
        "const": partial(_equal, {}, lambda constant: [constant]),
        "enum": partial(_equal, {}, list),
        "type": _type,
        "anyOf": partial(_count, lambda count: count > 0),
        "oneOf": partial(_count, lambda count: count == 1),
        "pattern": partial(_bound, "string", lambda value, pattern: patterns.search(pattern, value)),
        "patternProperties": partial(_pattern_properties, patterns.search),
        "additionalProperties": partial(_additional_properties, patterns.search),
        "unevaluatedProperties": partial(_unevaluated_properties, patterns.search),
        "unevaluatedItems": partial(_unevaluated_items, draft is Draft202012Validator),
    }
    legacy = ("minimum", "maximum", "type") if oldest else ()
    functions |= {name: own[name] for name in own.keys() & functions.keys() if name not in legacy}
    whole = _is_written_whole if oldest else is_whole
    types = draft.TYPE_CHECKER.redefine_many(
        {
            "number": lambda checker, value: is_number(value),
            "integer": lambda checker, value: whole(value),
        }
    )
    counted = {name: _counted(function, spend) for name, function in functions.items()}
    return _EXTEND(draft, counted, type_checker=types)


def _is_written_whole(value: Any) -> bool:
    """True if this is a number written without a fraction, as draft 4 demands of integers."""
    if isinstance(value, Decimal):
        return value.as_tuple().exponent == 0
    return isinstance(value, int) and not isinstance(value, bool)


def _counted(function: Keyword, spend: Callable[[], None]) -> Keyword:
    def run(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        spend()
        return function(validator, value, instance, schema)

    return run


def _bound(
    kind: str, holds: Callable[[Any, Any], bool], validator: Any, value: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, kind) and not holds(instance, value):
        yield ValidationError("")


def _type(validator: Any, types: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    kinds = [types] if isinstance(types, str) else types
    if not any(validator.is_type(instance, kind) for kind in kinds):
        yield ValidationError("")


def _equal(
    known: dict[int, frozenset[Hashable]],
    listed: Callable[[Any], list[Any]],
    validator: Any,
    value: Any,
    instance: Any,
    schema: Any,
) -> Iterator[ValidationError]:
    """Yields an error unless the instance is one of the values that `listed` returns of the keyword's."""
    if id(schema) not in known:
        known[id(schema)] = frozenset(map(key_of, listed(value)))
    if key_of(instance) not in known[id(schema)]:
        yield ValidationError("")


def _count(
    holds: Callable[[int], bool], validator: Any, schemas: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    """Yields an error unless `holds` of the number of schemas that accept the instance."""
    if not holds(sum(_accepts(validator, instance, one) for one in schemas)):
        yield ValidationError("")


def _accepts(validator: Any, instance: Any, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _pattern_properties(
    search: Callable[[str, str], bool], validator: Any, patterns: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, part in patterns.items():
        for name, value in instance.items():
            if search(pattern, name):
                yield from validator.descend(value, part, path=name, schema_path=pattern)


def _additional_properties(
    search: Callable[[str, str], bool], validator: Any, additional: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name not in declared and not any(search(pattern, name) for pattern in patterns):
            yield from validator.descend(value, additional, path=name)


def _unevaluated_properties(
    search: Callable[[str, str], bool], validator: Any, rest: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for name in unevaluated_properties(validator, instance, schema, search):
            yield from validator.descend(instance[name], rest, path=name)


def _unevaluated_items(
    contains_counts: bool, validator: Any, rest: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "array"):
        for place in unevaluated_items(validator, instance, schema, contains_counts=contains_counts):
            yield from validator.descend(instance[place], rest, path=place)
