"""Checks JSON texts against a whole JSON schema, in bounded time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from threading import Lock
from typing import Any

from decodery.decoding.json_schema.keywords import escaped, subschemas
from decodery.decoding.json_schema.patterns import Patterns
from decodery.decoding.json_schema.values import JsonFaultError, read_json
from decodery.errors import ParameterError

# A check takes at most so many steps, and so many more for each character of the text.
_STEPS, _STEPS_FOR_CHARACTER = 200_000, 40
_LONGEST_POINTER = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """Holds the keyword that a text violates, and the JSON pointer to the place in the text.

    The keyword is "json" for a text that is not JSON, "depth" for one that nests too deep to be checked, and
    "time" for one whose check would take too long.
    """

    keyword: str
    pointer: str = ""

    def __str__(self) -> str:
        if self.keyword == "json":
            return "the text is not JSON"
        if self.keyword == "depth":
            return "the text nests too deep to be checked against the JSON schema"
        if self.keyword == "time":
            return "the text takes too long to be checked against the JSON schema"
        place = f" at {self.pointer}" if self.pointer else ""
        return f"the text does not satisfy {self.keyword} of the JSON schema{place}"


class _OutOfStepsError(Exception):
    """Reports a check that takes too many steps."""


class _Steps:
    """Counts down the steps of a check."""

    left = 0

    def spend(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise _OutOfStepsError


class SchemaCheck:
    """Checks texts against one schema, given as its JSON text.

    Patterns are those of RE2, with look-around; known formats must hold. Several threads may use it; one
    waits for the other. `schema` is the schema with exact numbers and without `$schema`, `dialect` the name
    of its draft. Raises `ParameterError` if the schema breaks the rules of its draft, or has a pattern that
    cannot be searched for.
    """

    def __init__(self, schema: str) -> None:
        # Imported here, since the library takes long to import and few requests need it.
        from referencing.jsonschema import EMPTY_REGISTRY

        from decodery.decoding.json_schema.validators import draft_of, keyword_of, validator_class

        draft = draft_of(json.loads(schema))
        self._keyword_of = keyword_of
        self.dialect = draft.META_SCHEMA["$schema"]
        self._steps = _Steps()
        self._lock = Lock()
        patterns = Patterns(self._steps.spend)
        self.schema = _without_dialects(json.loads(schema, parse_float=Decimal))
        for pattern in _patterns(self.schema):
            try:
                patterns.add(pattern)
            except ParameterError as error:
                raise ParameterError(f"JsonSchema has a pattern that cannot be checked: {error}") from None
        self._validator = validator_class(draft, patterns, self._steps.spend)(
            self.schema, registry=EMPTY_REGISTRY
        )

    def problem(self, text: str) -> Problem | None:
        """Returns what is wrong with a text; None if the schema accepts it."""
        try:
            value = read_json(text)
        except JsonFaultError as fault:
            return Problem(str(fault))
        with self._lock:
            self._steps.left = _STEPS + _STEPS_FOR_CHARACTER * len(text)
            try:
                error = next(self._validator.iter_errors(value), None)
            except _OutOfStepsError:
                return Problem("time")
            except RecursionError:
                return Problem("depth")
        if error is None:
            return None
        pointer = "".join(f"/{escaped(part)}" for part in error.absolute_path)
        return Problem(self._keyword_of(error), ascii(pointer[:_LONGEST_POINTER])[1:-1])

    def accepts(self, part: Any, value: Any) -> bool:
        """True if a part of `schema` accepts a value of `read_json`; False also where this takes too long."""
        with self._lock:
            self._steps.left = _STEPS
            try:
                return bool(self._validator.evolve(schema=part).is_valid(value))
            except (_OutOfStepsError, RecursionError):
                return False


def _without_dialects(schema: Any) -> Any:
    """Returns a schema without `$schema`: the library would check a part that has it by other functions."""
    for part in subschemas(schema):
        _without_dialects(part)
    if isinstance(schema, dict):
        schema.pop("$schema", None)
    return schema


def _patterns(schema: Any) -> Iterator[str]:
    """Yields the regular expressions of a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        yield from schema.get("patternProperties", ())
    for part in subschemas(schema):
        yield from _patterns(part)
