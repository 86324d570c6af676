"""Makes parameters of generation of a request's fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from decodery.decoding.request.grammar_params import LOOSER
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import params_from_plain
from decodery.errors import ParameterError
from decodery.serving.errors import ApiError, api_error, invalid
from decodery.serving.openai.fields import Fields, check_limits, check_schema
from decodery.serving.settings import RequestLimits, ServerSettings


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Holds if an answer is streamed, and what its stream has besides the text."""

    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    include_hypotheses: bool = False
    progress: bool = False

    @property
    def wanted(self) -> dict[str, bool]:
        """Returns what `Generation` must tell for them."""
        return {"tells_progress": self.progress, "tells_beams": self.include_hypotheses}


def stream_options(fields: Fields, *, lenient: bool) -> StreamOptions:
    """Takes `stream`, `stream_options` and `return_progress`."""
    stream = fields.take("stream", bool, False)
    progress = fields.take("return_progress", bool, False)
    given = fields.take("stream_options", dict, {})
    if given and not stream:
        raise invalid("stream_options needs stream", "stream_options")
    inner = Fields(given, "stream_options.")
    options = StreamOptions(
        stream,
        inner.take("include_usage", bool, False),
        inner.take("continuous_usage_stats", bool, False),
        inner.take("include_hypotheses", bool, False),
        progress,
    )
    inner.take("include_obfuscation", bool, False)
    inner.close(lenient=lenient)
    return options


def generation_params(
    plain: dict[str, Any],
    fields: Fields,
    defaults: GenerationParams,
    settings: ServerSettings,
    models: Collection[str],
) -> GenerationParams:
    """Returns the parameters that `plain` (by our own names) and the other fields of decoding describe.

    `models` are the second models that they may name. Takes the fields: beam search as vLLM writes it,
    `response_format` and `structured_outputs`. Raises `ApiError`.
    """
    limits = settings.limits
    _take_beam_search(plain, fields)
    _take_structure(plain, fields, limits)
    if isinstance(plain.get("grammar"), dict):
        check_schema(plain["grammar"], "grammar", limits)
    if limits.max_tokens is not None and plain.get("max_tokens") is None:
        plain["max_tokens"] = limits.max_tokens
    try:
        params = params_from_plain(plain, defaults, models=models)
    except ParameterError as error:
        raise api_error(error) from None
    check_limits(params, limits)
    return params


# The forms of `LOOSER` in fields other than `grammar`; `structured_outputs` has none of its own.
_LOOSER = {
    "response_format": '"strict": false',
    "structured_outputs": 'a "grammar" of type "json_schema" with "unsupported": "approximate"',
}


@contextmanager
def grammar_named(body: Mapping[str, Any]) -> Iterator[None]:
    """Names, in an `ApiError` about the grammar, the field of the body that gave it, and what it may say."""
    try:
        yield
    except ApiError as error:
        if error.param == "grammar":
            given = [name for name in ("response_format", "structured_outputs", "tools") if body.get(name)]
            error.param = "grammar" if body.get("grammar") or not given else given[0]
            error.message = error.message.replace(LOOSER, _LOOSER.get(error.param, LOOSER))
        raise


def _take_beam_search(plain: dict[str, Any], fields: Fields) -> None:
    """Takes vLLM's `use_beam_search`, with `n` beams, `length_penalty` and `early_stopping`."""
    beams = fields.take("use_beam_search", bool, False)
    names = ("length_penalty", "early_stopping")
    given = {name: fields.raw(name) for name in names if name in fields}
    if not beams:
        if given.get("length_penalty") not in (None, 1, 1.0) or given.get("early_stopping") not in (
            None,
            False,
        ):
            raise invalid(
                "length_penalty and early_stopping need use_beam_search or a strategy", "length_penalty"
            )
        return
    if "strategy" in plain:
        raise invalid("use_beam_search and strategy are two strategies: give one", "strategy")
    count = plain.pop("n", 1)
    plain.pop("temperature", None)
    width = plain.pop("best_of", None) or count
    if type(count) is not int or type(width) is not int or width < 1:
        raise invalid("n must be a whole number from 1 on", "n")
    # One beam is greedy search, of which there is no beam strategy.
    if width == 1:
        plain["temperature"] = 0
        return
    plain["strategy"] = {"type": "beam_search", "num_beams": width, "num_return_sequences": count, **given}


_STRUCTURES = ("json", "regex", "choice", "grammar", "json_object")


def _take_structure(plain: dict[str, Any], fields: Fields, limits: RequestLimits) -> None:
    """Takes `response_format` of OpenAI and `structured_outputs` of vLLM into `grammar`."""
    found = []
    if "grammar" in plain:
        found.append("grammar")
    response_format = fields.take("response_format", dict, {})
    if response_format:
        grammar = _response_format(response_format, limits)
        if grammar is not None:
            plain["grammar"] = grammar
            found.append("response_format")
    structured = fields.take("structured_outputs", dict, {})
    if structured:
        plain["grammar"] = _structured(structured, limits)
        found.append("structured_outputs")
    if len(found) > 1:
        raise invalid(f"{' and '.join(found)} each say what the text must match: give one", found[-1])


def _response_format(given: Mapping[str, Any], limits: RequestLimits) -> dict[str, Any] | None:
    inner = Fields(given, "response_format.")
    kind = inner.take("type", str, "")
    if kind == "json_schema":
        described = Fields(inner.take("json_schema", dict, {}), "response_format.json_schema.")
        schema = described.raw("schema")
        for name in ("name", "description"):
            described.take(name, str, "")
        strict = described.take("strict", bool, False)
        described.close(lenient=False)
        if not isinstance(schema, (dict, bool)):
            raise invalid("a schema is needed", "response_format.json_schema.schema")
        check_schema(schema, "response_format.json_schema.schema", limits)
        inner.close(lenient=False)
        return {"type": "json_schema", "schema": schema, "unsupported": "error" if strict else "approximate"}
    inner.close(lenient=False)
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "text":
        return None
    raise invalid("type must be text, json_object or json_schema", "response_format.type")


def _structured(given: Mapping[str, Any], limits: RequestLimits) -> dict[str, Any]:
    inner = Fields(given, "structured_outputs.")
    kinds = {name: inner.raw(name) for name in _STRUCTURES if name in inner}
    inner.close(lenient=False)
    if len(kinds) != 1:
        raise invalid(
            "structured_outputs needs one of json, regex, choice, grammar and json_object",
            "structured_outputs",
        )
    ((kind, value),) = kinds.items()
    check_schema(value, f"structured_outputs.{kind}", limits)
    match kind:
        case "json":
            return {"type": "json_schema", "schema": value}
        case "regex":
            return {"type": "regex", "pattern": value}
        case "choice":
            return {"type": "choice", "options": value}
        case "grammar":
            return {"type": "lark" if "start:" in str(value) else "gbnf", "grammar": value}
    return {"type": "json_object"}
