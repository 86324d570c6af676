"""Makes the schema of exported runs from the classes of the wire, when run as a module."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from decodery.decoding.trace import Considered
from decodery.serving.page.page_files import ASSETS
from decodery.serving.page.run_page import FORMAT, VERSION
from decodery.wire.trace_lines import (
    EndLine,
    ErrorLine,
    EventLine,
    Header,
    OutputLine,
    SpelledTokens,
    TextLine,
)

FILE = ASSETS / "core" / "run_schema.json"
Schema = dict[str, Any]
LINES: Mapping[str, type] = {
    "trace": Header,
    "tokens": SpelledTokens,
    "event": EventLine,
    "text": TextLine,
    "output": OutputLine,
    "end": EndLine,
    "error": ErrorLine,
}
# The whole numbers that JavaScript reads exactly.
MOST = 2**53 - 1
INTEGER: Schema = {"type": "integer", "minimum": -MOST, "maximum": MOST}
STREAM: Schema = {"type": "integer", "minimum": 0, "maximum": 1023}
TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
NAME = "^[a-z][a-z0-9_]*$"
# What the classes do not say: bounds of a list, or the whole schema of a field. A run is the only request of
# its lines.
BOUNDS: Mapping[tuple[str, str], Schema] = {
    ("Header", "version"): {"const": 1},
    ("Header", "requests"): {"minItems": 1, "maxItems": 1},
    ("TracedRequest", "params"): {"type": "object", "propertyNames": {"pattern": NAME}},
    ("TracedRequest", "prompt_token_ids"): {"type": "array", "items": TOKEN},
    ("SpelledTokens", "tokens"): {
        "type": "array",
        "items": {
            "type": "array",
            "prefixItems": [TOKEN, {"type": "string", "pattern": "^([0-9a-f]{2})*$"}],
            "minItems": 2,
            "maxItems": 2,
        },
    },
    ("Event", "request"): {"const": 0},
    ("Event", "stream"): {"anyOf": [STREAM, {"type": "null"}]},
    ("TextLine", "request"): {"const": 0},
    ("OutputLine", "request"): {"const": 0},
    ("StreamEvent", "index"): STREAM,
    ("Completion", "index"): STREAM,
}


def run_schema() -> Schema:
    """Returns the schema of a run as the page exports it."""
    definitions: dict[str, Schema] = {}
    lines = [_object(kind, definitions, {"kind": {"const": name}}) for name, kind in LINES.items()]
    lines.append(_given(definitions))
    branch = {"stream": INTEGER, "position": INTEGER, "token": _of(int | None, definitions)}
    text: Schema = {"type": "string"}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": text, "run": text},
    }
    run = {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "title": {"type": "string", "maxLength": 10_000},
        "created": {"type": "number"},
        "parent": {
            "anyOf": [
                {"type": "null"},
                {"type": "object", "properties": {"run": {"type": "string"}, **branch}},
            ]
        },
        "messages": {"anyOf": [{"type": "null"}, {"type": "array", "items": message}]},
        "state": {"enum": ["waiting", "prefill", "running", "done", "cut", "failed"]},
        "error": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "lines": {"type": "array", "minItems": 1, "items": {"anyOf": lines}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of Decodery",
        "type": "object",
        "required": list(run),
        "properties": run,
        "$defs": definitions,
    }


def _given(definitions: dict[str, Schema]) -> Schema:
    """Returns the schema of the one line that no trace has: the positions that a branch goes on from."""
    position = {
        "token": TOKEN,
        "choice": _of(Considered | None, definitions),
        "logprob": _of(float | None, definitions),
        "drafted": _of(int | None, definitions),
        "source": _of(str | None, definitions),
        "accepted": _of(bool, definitions),
        "picked": _of(bool, definitions),
    }
    items = {"type": "object", "required": list(position), "properties": position}
    fields = {"kind": {"const": "given"}, "positions": {"type": "array", "items": items}}
    return {"type": "object", "required": list(fields), "properties": fields}


def _object(kind: type, definitions: dict[str, Schema], first: Mapping[str, Schema]) -> Schema:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    properties = {f.name: _field(kind, f.name, _of(hints[f.name], definitions)) for f in fields}
    return {"type": "object", "required": [*first, *needed], "properties": {**first, **properties}}


def _field(kind: type, name: str, found: Schema) -> Schema:
    bound = BOUNDS.get((kind.__name__, name), {})
    return {**found, **bound} if bound.keys() <= {"minItems", "maxItems"} else bound


def _of(hint: Any, definitions: dict[str, Schema]) -> Schema:
    """Returns the schema of a type; that of a class goes into the definitions."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(part, definitions) for part in parts]}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin is tuple and parts[1:] != (...,):
        items = [_of(part, definitions) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _of(parts[0], definitions)}
    if origin is Mapping:
        return {"type": "object"}
    if dataclasses.is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _object(hint, definitions, {})  # type: ignore[arg-type]
        return {"$ref": f"#/$defs/{name}"}
    plain: dict[Any, Schema] = {
        int: INTEGER,
        float: {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]},
        str: {"type": "string"},
        bytes: {"type": "string", "pattern": "^[A-Za-z0-9+/]*={0,2}$"},
        bool: {"type": "boolean"},
        types.NoneType: {"type": "null"},
    }
    return plain[hint]


def written() -> str:
    """Returns the text of the file."""
    return json.dumps(run_schema(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
