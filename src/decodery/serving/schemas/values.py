"""Makes JSON schemas of the parameters of generation: of their types, help texts and bounds."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from decodery.decoding.request.params import REAL, WHOLE, GenerationParams
from decodery.decoding.request.plain import FORMS, FUNCTIONS
from decodery.decoding.request.strategy_params import Phrase

Schema = dict[str, Any]

_PLAIN: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
# The bounds of `REAL`, which are written in words, in the words of JSON Schema.
BOUNDS: Mapping[str, Schema] = {
    "0, or 1e-06 or more": {"minimum": 0},
    "0 or more": {"minimum": 0},
    "1 or more": {"minimum": 1},
    "above 0": {"exclusiveMinimum": 0},
    "above 0 and at most 1": {"exclusiveMinimum": 0, "maximum": 1},
    "from 0 to 1": {"minimum": 0, "maximum": 1},
    "from 0 to below 1": {"minimum": 0, "exclusiveMaximum": 1},
    "a finite number": {},
}
# A bias of logits; minus infinity, which JSON lacks, is a text.
_BIAS: Schema = {"anyOf": [{"type": "number"}, {"const": "-inf"}]}


def parameters() -> dict[str, Schema]:
    """Returns the schema of each field of `GenerationParams` that is plain data, by its name."""
    hints = get_type_hints(GenerationParams)
    found: dict[str, Schema] = {}
    for field in dataclasses.fields(GenerationParams):
        if field.name in FORMS:
            found[field.name] = _described(field, _of_form(field.name))
        elif field.name not in FUNCTIONS:
            found[field.name] = _described(field, of_type(hints[field.name]))
    return found


def _of_form(name: str) -> Schema:
    """Returns the schema of a field that holds one of several objects, or the bare name of its type."""
    form = FORMS[name]
    references: list[Schema] = [_reference(kind) for kind in form.kinds.values()]
    bare = [name for name in form.types if name not in form.kinds or not _required(form.kinds[name])]
    return any_of([{"enum": bare}, *references]) if form.bare else any_of(references)


def _described(field: dataclasses.Field[Any], schema: Schema) -> Schema:
    text: str = field.metadata["help"]
    if field.name in REAL:
        bound = REAL[field.name][0]
        schema = {**schema, **BOUNDS[bound]}
        text += f" It is {bound}."
    if field.name in WHOLE:
        schema = {**schema, "minimum": WHOLE[field.name][0]}
    if field.name in FORMS:
        schema = {**schema, **_default_type(field)}
    elif _is_plain(field.default):
        schema = {**schema, "default": field.default}
    return {**nullable(schema), "description": text}


def _default_type(field: dataclasses.Field[Any]) -> Schema:
    """Returns the default of a field that holds one of several objects, if it is one of them."""
    kinds = FORMS[field.name].kinds
    return next(({"default": name} for name, kind in kinds.items() if type(field.default) is kind), {})


def _is_plain(value: Any) -> bool:
    return value is not dataclasses.MISSING and isinstance(value, (bool, int, float, str))


def of_type(hint: Any) -> Schema:
    """Returns the schema of a type's values in JSON."""
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is type(None):
        return {"type": "null"}
    # A second model, which a request names.
    if hint is Any:
        return {"type": "string"}
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _of_union(parts)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is tuple and parts[-1] is Ellipsis:
        return {"type": "array", "items": _item(of_type(parts[0]))}
    if origin is tuple:
        of_parts = [of_type(part) for part in parts]
        return {"type": "array", "prefixItems": of_parts, "minItems": len(parts), "maxItems": len(parts)}
    return {"type": "object"}


def _of_union(parts: tuple[Any, ...]) -> Schema:
    """Returns the schema of a union; one of maps and of lists of pairs holds biases."""
    biased = next((get_args(part)[0] for part in parts if get_origin(part) is Mapping), None)
    if biased not in (int, Phrase):
        return any_of([of_type(part) for part in parts])
    keys: Schema = {"propertyNames": {"pattern": "^[0-9]{1,19}$"}} if biased is int else {}
    pair: Schema = {
        "type": "array",
        "prefixItems": [_item(of_type(biased)), _BIAS],
        "minItems": 2,
        "maxItems": 2,
    }
    return any_of(
        [{"type": "object", **keys, "additionalProperties": _BIAS}, {"type": "array", "items": pair}]
    )


def _item(schema: Schema) -> Schema:
    """Returns the schema of a list's item: whole numbers in lists are ids, and texts are not empty."""
    if "anyOf" in schema:
        return any_of([_item(one) for one in schema["anyOf"]])
    if isinstance(schema.get("type"), list):
        return any_of([_item({"type": one}) for one in schema["type"]])
    return {
        **schema,
        **{"integer": {"minimum": 0}, "string": {"minLength": 1}}.get(schema.get("type", ""), {}),
    }


def any_of(schemas: list[Schema]) -> Schema:
    """Returns the schema of values that one of these accepts."""
    flat = [
        one for schema in schemas for one in (schema["anyOf"] if schema.keys() == {"anyOf"} else [schema])
    ]
    unique = [schema for place, schema in enumerate(flat) if schema not in flat[:place]]
    if len(unique) == 1:
        return unique[0]
    if all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in unique):
        return {"type": [schema["type"] for schema in unique]}
    return {"anyOf": unique}


def nullable(schema: Schema) -> Schema:
    """Returns the schema with null, which counts as absent."""
    if "enum" in schema:
        return schema if None in schema["enum"] else {**schema, "enum": [*schema["enum"], None]}
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return schema if "null" in kinds else {**schema, "type": [*kinds, "null"]}
    if "anyOf" in schema:
        return {**schema, **any_of([*schema["anyOf"], {"type": "null"}])}
    return any_of([schema, {"type": "null"}]) if schema else schema


def objects() -> dict[str, Schema]:
    """Returns the schemas of strategies, grammars, speculation and watermarks, by the names of classes."""
    return {
        kind.__name__: _object(name, kind, optional_type=len(form.kinds) == 1)
        for form in FORMS.values()
        for name, kind in form.kinds.items()
    }


def _object(type_name: str, kind: type[Any], *, optional_type: bool) -> Schema:
    hints = get_type_hints(kind)
    properties: dict[str, Schema] = {"type": {"const": type_name}}
    for field in dataclasses.fields(kind):
        schema = of_type(hints[field.name])
        if _is_plain(field.default):
            schema = {**schema, "default": field.default}
        if "help" in field.metadata:
            schema = {**schema, "description": field.metadata["help"]}
        properties[field.name] = schema
    required = _required(kind) if optional_type else ["type", *_required(kind)]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _required(kind: type[Any]) -> list[str]:
    """Returns the fields that an object must have; second models have no default."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return [f.name for f in fields if f.default is dataclasses.MISSING or hints[f.name] is Any]


def _reference(kind: type[Any]) -> Schema:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
