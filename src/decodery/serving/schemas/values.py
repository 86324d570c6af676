"""Makes JSON schemas of the parameters of generation: of their types, help texts and bounds."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from decodery.decoding.request.grammar_params import GRAMMARS
from decodery.decoding.request.params import REAL, WHOLE, GenerationParams
from decodery.decoding.request.speculation_params import SPECULATIONS
from decodery.decoding.request.strategy_params import STRATEGIES, DoLa
from decodery.decoding.request.watermark_params import Watermark

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
_ITEMS_OR_ONE = ("bad_words", "dry_sequence_breakers", "stop")


def parameters() -> dict[str, Schema]:
    """Returns the schema of each field of `GenerationParams` that is plain data, by its name."""
    hints = get_type_hints(GenerationParams)
    found: dict[str, Schema] = {}
    for field in dataclasses.fields(GenerationParams):
        schema = of_type(hints[field.name])
        if schema not in (None, {"type": "null"}):
            found[field.name] = _described(field, schema)
    return found


def _described(field: dataclasses.Field[Any], schema: Schema) -> Schema:
    text: str = field.metadata["help"]
    if field.name in REAL:
        bound = REAL[field.name][0]
        schema = {**schema, **BOUNDS[bound]}
        text += f" It is {bound}."
    if field.name in WHOLE:
        schema = {**schema, "minimum": WHOLE[field.name][0]}
    if field.name in _ITEMS_OR_ONE and "anyOf" not in schema:
        schema = any_of([schema["items"], schema])
    if _is_plain(field.default):
        schema = {**schema, "default": field.default}
    return {**nullable(schema), "description": text}


def _is_plain(value: Any) -> bool:
    return value is not dataclasses.MISSING and isinstance(value, (bool, int, float, str))


def of_type(hint: Any) -> Schema | None:
    """Returns the schema of a type's values in JSON; None for functions, which JSON cannot hold."""
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is type(None):
        return {"type": "null"}
    # A second model, which a request names.
    if hint is Any:
        return {"type": "string"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    return _of_generic(get_origin(hint), get_args(hint))


def _of_generic(origin: Any, arguments: tuple[Any, ...]) -> Schema | None:
    if origin in (Union, types.UnionType):
        return any_of([schema for one in arguments if (schema := of_type(one)) is not None])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[-1] is Ellipsis:
        items = of_type(arguments[0])
        return None if items is None else {"type": "array", "items": _item(items)}
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [of_type(one) for one in arguments],
            "minItems": len(arguments),
            "maxItems": len(arguments),
        }
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of_type(arguments[1])}
    assert origin is Callable or issubclass(origin, Callable), origin  # type: ignore[arg-type]
    return None


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
    kinds = (*STRATEGIES, *GRAMMARS, *SPECULATIONS, Watermark)
    return {kind.__name__: _object(kind) for kind in kinds}


def _object(kind: type[Any]) -> Schema:
    hints = get_type_hints(kind)
    properties: dict[str, Schema] = {"type": {"const": type_name(kind)}}
    required = ["type"]
    for field in dataclasses.fields(kind):
        schema = of_type(hints[field.name])
        assert schema is not None, field.name
        if _is_plain(field.default):
            schema = {**schema, "default": field.default}
        if "help" in field.metadata:
            schema = {**schema, "description": field.metadata["help"]}
        if field.default is dataclasses.MISSING or hints[field.name] is Any:
            required.append(field.name)
        properties[field.name] = schema
    described = (kind.__doc__ or "").split("\n")[0]
    return {
        "type": "object",
        "description": described,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def type_name(kind: type[Any]) -> str:
    """Returns the `type` of an object in JSON: its class's name in small letters with underscores."""
    if kind is DoLa:
        return "dola"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
