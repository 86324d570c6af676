"""Reads the fields of a request's body, and refuses what the server cannot honour."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from decodery.decoding.request.grammar_params import Grammar
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import FUNCTIONS
from decodery.serving.errors import ApiError, invalid
from decodery.serving.settings import RequestLimits

T = TypeVar("T")

# Fields that change no text here, whatever their value.
NO_EFFECT = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "timings_per_token",
        "user",
        "verbosity",
    }
)
# Fields that are not supported, with the values that ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "audio": (),
    "bad_words_ids": ([],),
    "cache_prompt": (True,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "web_search_options": (),
}
# Other names of fields of GenerationParams.
ALIASES = {"include_stop_str_in_output": "include_stop", "max_completion_tokens": "max_tokens"}
PARAMETERS = frozenset(f.name for f in dataclasses.fields(GenerationParams)) - set(FUNCTIONS)
_KINDS = {bool: "true or false", str: "a text", int: "a whole number", dict: "an object", list: "a list"}


class Fields:
    """Takes the fields of a body one by one; a null counts as absent.

    `close` refuses what nobody took.
    """

    def __init__(self, body: Mapping[str, Any], path: str = "") -> None:
        self._path = path
        self._left = {name: value for name, value in body.items() if value is not None}
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, kind: type[T], default: T) -> T:
        """Returns the value of a field, or the default. Raises `ApiError` if it is of another type."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid(f"{self._path}{name} must be {_KINDS[kind]}", self._path + name)
        return value

    def raw(self, name: str) -> Any:
        """Returns the value of a field, of any type; None if it is absent."""
        self._known.add(name)
        return self._left.pop(name, None)

    def parameters(self) -> dict[str, Any]:
        """Returns the fields that are parameters of generation, under the names of `GenerationParams`."""
        found: dict[str, Any] = {}
        for name in [n for n in self._left if n in PARAMETERS or n in ALIASES]:
            ours = ALIASES.get(name, name)
            value = self.raw(name)
            if ours in found and found[ours] != value:
                raise invalid(f"{name} and {ours} say different things: give one of them", name)
            found[ours] = value
        self._known |= PARAMETERS | ALIASES.keys()
        return found

    def close(self, *, lenient: bool) -> None:
        """Raises `ApiError` for a field that is left, unless it changes nothing or the server is lenient."""
        for name, value in self._left.items():
            if name in NO_EFFECT or (name in NEUTRAL and value in NEUTRAL[name]):
                continue
            if name in NEUTRAL:
                raise invalid(f"{name} is not supported here", name)
            if not lenient:
                raise invalid(f"there is no field of this name{self._nearest(name)}", self._path + name)

    def _nearest(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._known, 1)
        return f": did you mean {self._path}{close[0]}?" if close else ""


def check_limits(params: GenerationParams, limits: RequestLimits) -> None:
    """Raises `ApiError` if the parameters ask for more than the server gives a request."""
    counts = {
        "n": (max(params.streams, params.width), limits.n),
        "logprobs": (params.logprobs or 0, limits.logprobs),
        "prompt_logprobs": (params.prompt_logprobs or 0, limits.logprobs),
        "stop": (1 if isinstance(params.stop, str) else len(params.stop), limits.stops),
        "max_tokens": (params.max_tokens or 0, limits.max_tokens),
    }
    for name, (count, most) in counts.items():
        if most is not None and count > most:
            raise invalid(f"{name} is at most {most} here", name)


def check_single(params: GenerationParams) -> None:
    """Raises `ApiError` for parameters that ask for several answers, where an interface has one."""
    if params.choices != 1:
        raise invalid("this interface gives one answer", "n")


def grammar_size(grammar: Grammar | None, tools: Sequence[Any] = ()) -> int:
    """Returns the number of characters of what is compiled for a grammar and tools; 0 for neither."""
    return (0 if grammar is None else len(repr(grammar))) + (len(json.dumps(tools)) if tools else 0)


def check_schema(schema: Any, param: str, limits: RequestLimits) -> None:
    """Raises `ApiError` if a schema or grammar is larger than the server compiles."""
    size = len(schema if isinstance(schema, str) else json.dumps(schema))
    if size > limits.schema:
        raise ApiError(400, f"the schema is larger than {limits.schema} characters", param=param)
