"""Writes docs/serving-fields.md, the tables of the fields of requests.

Command: `python -m tests.serving.fields_page`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from decodery.serving.openai.fields import ALIASES, NEUTRAL, NO_EFFECT
from decodery.serving.schemas.anthropic_bodies import MESSAGE
from decodery.serving.schemas.encoder_bodies import (
    CLASSIFY,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    EMBEDDING,
    PREDICT,
    RERANK,
    SCORE,
    TEI_RERANK,
)
from decodery.serving.schemas.operations import APPLY_TEMPLATE, DETOKENIZE, LAYERS, TOKENIZE, TOKENIZE_INPUTS
from decodery.serving.schemas.request_bodies import CHAT, COMPLETION, GENERATING, RESPONSE
from decodery.serving.schemas.values import Schema, parameters

PAGE = Path(__file__).parents[2] / "docs" / "serving-fields.md"
_HEAD = """\
# The fields of requests

`python -m tests.serving.fields_page` writes this page from the tables that read the requests.
[serving.md](serving.md) describes the server. A field whose value is null counts as absent. The types are
those of JSON; `/openapi.json` has the full schemas.
"""


def page() -> str:
    """Returns the text of the page."""
    routes = [
        ("`/v1/chat/completions` and `/v1/completions`", GENERATING),
        ("`/v1/chat/completions` alone", _others(CHAT)),
        ("`/v1/completions` alone", _others(COMPLETION)),
        ("`/v1/responses`", RESPONSE),
        ("`/v1/messages` and `/v1/messages/count_tokens`", MESSAGE),
        ("`/tokenize`", TOKENIZE),
        ("`/tokenize` with `inputs`", TOKENIZE_INPUTS),
        ("`/detokenize`", DETOKENIZE),
        ("`/apply-template`", APPLY_TEMPLATE),
        ("`/trace/layers`", LAYERS),
        ("`/v1/embeddings`", EMBEDDING),
        ("`/v1/rerank`, `/v2/rerank`, and `/rerank` with `documents`", RERANK),
        ("`/rerank` with `texts`", TEI_RERANK),
        ("`/v1/score`", SCORE),
        ("`/v1/classify`", CLASSIFY),
        ("`/embed`", EMBED),
        ("`/embed_all`", EMBED_ALL),
        ("`/embed_sparse`", EMBED_SPARSE),
        ("`/predict`", PREDICT),
    ]
    sections = [_section(title, _rows(fields)) for title, fields in routes]
    own = {name: (schema, schema["description"]) for name, schema in parameters().items()}
    return "\n".join(
        [_HEAD, *sections, _section(_PARAMETERS, _rows(own)), _aliases(), _no_effect(), _neutral()]
    )


_PARAMETERS = "Parameters of generation, for all routes that generate"


def _others(fields: Mapping[str, tuple[Schema, str]]) -> dict[str, tuple[Schema, str]]:
    return {name: field for name, field in fields.items() if name not in GENERATING}


def _section(title: str, rows: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "| field | type | default | |", "|---|---|---|---|", *rows, ""])


def _rows(fields: Mapping[str, tuple[Schema, str]]) -> list[str]:
    return [
        f"| `{name}` | {_type(schema)} | {_default(schema)} | {text} |"
        for name, (schema, text) in fields.items()
    ]


def _default(schema: Schema) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def _type(schema: Schema) -> str:
    """Returns the type of a field in words, without null."""
    return " or ".join(dict.fromkeys(_types(schema)))


def _types(schema: Any) -> list[str]:
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return [f"`{json.dumps(value)}`" for value in values if value is not None]
    if "$ref" in schema:
        return ["object"]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return [kind for one in schema[key] for kind in _types(one)]
    kinds = schema.get("type", "any")
    return [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]


def _aliases() -> str:
    rows = [f"| `{alias}` | `{name}` |" for alias, name in sorted(ALIASES.items())]
    return "\n".join(["## Other names", "| field | the same as |", "|---|---|", *rows, ""])


def _no_effect() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(NO_EFFECT))
    return f"## Accepted without effect\nThese fields change no text, whatever their value: {names}.\n"


def _neutral() -> str:
    head = "Of these fields the values here ask for nothing and are accepted; others are an error."
    rows = [
        f"| `{name}` | {', '.join(f'`{json.dumps(value)}`' for value in (None, *values))} |"
        for name, values in sorted(NEUTRAL.items())
    ]
    return "\n".join(["## Not supported", head, "", "| field | accepted |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
