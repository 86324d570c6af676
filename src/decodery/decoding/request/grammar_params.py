"""Defines the grammars that a text can be required to match; immutable. Needs no torch.

Their content is checked when a request is added, because the check needs the model's vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from decodery.decoding.json_schema.keywords import REFERENCES
from decodery.decoding.json_schema.references import targets_of
from decodery.decoding.request.checks import strings
from decodery.errors import ParameterError


@dataclass(frozen=True)
class Regex:
    """Requires that the whole text matches this regular expression.

    Only regular languages are supported: no look-around, no back-references.
    """

    pattern: str = field(metadata={"help": "The regular expression."})

    def __post_init__(self) -> None:
        _text("Regex", self.pattern)


@dataclass(frozen=True)
class Choice:
    """Requires that the text is one of these options."""

    options: tuple[str, ...] = field(metadata={"help": "The texts that are allowed."})

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", strings("Choice", self.options))
        if not self.options:
            raise ParameterError("Choice has no options")


# What an error advises for a schema that no grammar follows; other interfaces write their own form of it.
LOOSER = 'unsupported="approximate"'


@dataclass(frozen=True)
class JsonSchema:
    """Requires that the text is JSON that this schema accepts.

    The schema is given as its text or as what json.loads makes of it; it is kept as text. Its references must
    lead to places in it. Each finished text is checked against the whole schema; one that it does not accept
    ends with the reason "invalid". Where a grammar cannot follow a keyword exactly, `unsupported` says what
    happens: "error" refuses the schema, "approximate" follows a looser one, and leaves the rest to the check.
    """

    schema: str | Mapping[str, Any] | bool = field(metadata={"help": "The schema, as JSON."})
    unsupported: Literal["error", "approximate"] = field(
        default="error",
        metadata={"help": "Where no grammar can follow the schema: refuse it, or follow a looser one."},
    )

    def __post_init__(self) -> None:
        schema = self.schema
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except json.JSONDecodeError as error:
                raise ParameterError(
                    f"JsonSchema is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
                ) from None
        if not isinstance(schema, (Mapping, bool)):
            raise ParameterError(f"JsonSchema must be an object, not {type(schema).__name__}")
        try:
            text = json.dumps(schema)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"JsonSchema holds what JSON cannot: {error}") from None
        if self.unsupported not in ("error", "approximate"):
            raise ParameterError(
                f"JsonSchema: unsupported must be 'error' or 'approximate', not {self.unsupported!r}"
            )
        if any(f'"{keyword}"' in text for keyword in REFERENCES):
            plain = json.loads(text)
            targets_of(plain, plain.get("$schema"))
        object.__setattr__(self, "schema", text)


@dataclass(frozen=True)
class JsonObject:
    """Requires that the text is a JSON object, whatever is in it."""


@dataclass(frozen=True)
class Lark:
    """Requires that the text matches this context-free grammar, in the notation of Lark."""

    grammar: str = field(metadata={"help": "The grammar's text."})

    def __post_init__(self) -> None:
        _text("Lark", self.grammar)


@dataclass(frozen=True)
class Gbnf:
    """Requires that the text matches this grammar, in the notation of llama.cpp; rule `root` is the start."""

    grammar: str = field(metadata={"help": "The grammar's text."})

    def __post_init__(self) -> None:
        _text("Gbnf", self.grammar)


GRAMMARS = (Regex, Choice, JsonSchema, JsonObject, Lark, Gbnf)
Grammar = Regex | Choice | JsonSchema | JsonObject | Lark | Gbnf


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ParameterError(f"{name} must be given as text, not {type(value).__name__}")
    if not value.strip():
        raise ParameterError(f"{name} is empty")
