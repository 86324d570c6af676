"""Answers `/trace`: what the library returns, and each step's own numbers, as a stream of lines.

`docs/trace.md` describes the requests and the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from decodery.decoding.draw import stream_seed
from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import params_from_plain, params_to_plain
from decodery.decoding.request.strategy_params import BeamSearch, StochasticBeamSearch
from decodery.errors import DecoderyError, ParameterError, RequestError
from decodery.intake import Intake, Prepared
from decodery.outputs import Observer, RequestOutput, StreamEvent
from decodery.serving.errors import ApiError, api_error, invalid
from decodery.serving.generation import Addition, Generation
from decodery.serving.models import ServedModel
from decodery.serving.openai.fields import Fields, check_limits, check_schema, grammar_size
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.settings import RequestLimits, ServerSettings
from decodery.serving.sse import PING
from decodery.wire.trace_lines import (
    VERSION,
    EndLine,
    ErrorLine,
    EventLine,
    Header,
    Line,
    OutputLine,
    ProgressLine,
    TextLine,
    TracedRequest,
    TraceWriter,
)

# Candidates of each choice. A request for one token may ask for the whole vocabulary.
MOST_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """Holds a prompt and its parameters, as they were asked for.

    The last `generated` ids of the prompt are the beginning of the text. With `stream`, the text is that of
    this completion of the parameters. With `suffix`, it is what stands between the prompt and the suffix.
    """

    prompt: str | list[int]
    params: GenerationParams
    generated: int = 0
    stream: int | None = None
    suffix: str | None = None

    @property
    def runs(self) -> GenerationParams:
        """Returns the parameters of what runs: all completions, or the one that `stream` names."""
        if self.stream is None:
            return self.params
        assert self.params.seed is not None
        return self.params.replace(n=1, best_of=None, seed=stream_seed(self.params.seed, self.stream))

    def prepared(self, intake: Intake, salt: bytes) -> Prepared:
        """Returns the request for an engine. Raises the errors of `Intake`."""
        params = self.runs
        if self.suffix is None:
            return intake.prepare(self.prompt, params, salt=salt, generated=self.generated)
        assert isinstance(self.prompt, str)
        ids, ends = intake.infill_prompt(self.prompt, self.suffix)
        params = params.replace(stop_token_ids=(*params.stop_token_ids, *ends))
        return intake.prepare(ids, params, salt=salt)


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """Holds what a client asks of `/trace`.

    `candidates` is None where no events are told, `texts` says that texts are told as they grow, `logits`
    that the only choice tells all of its logits, and `progress` that the progress of prompts is told.
    """

    requests: Sequence[Asked]
    candidates: int | None
    texts: bool
    logits: bool
    progress: bool
    cache_salt: str | None
    priority: int


def read_trace_request(
    body: Mapping[str, Any], defaults: GenerationParams, settings: ServerSettings, models: Sequence[str]
) -> TraceRequest:
    """Returns the request that a body describes. Raises `ApiError`, and `ParameterError` for parameters."""
    fields = Fields(body)
    fields.raw("model")
    listed = fields.take("requests", list, [])
    candidates = fields.raw("candidates")
    texts = fields.take("texts", bool, False)
    logits = fields.take("logits", bool, False)
    progress = fields.take("progress", bool, False)
    cache_salt = fields.take("cache_salt", str, "") or None
    priority = fields.take("priority", int, 0)
    fields.close(lenient=settings.lenient)
    if not 0 < len(listed) <= settings.limits.prompts:
        raise invalid(f"requests must be a list of 1 to {settings.limits.prompts} requests", "requests")
    asked = [_asked_at(listed, place, defaults, settings, models) for place in range(len(listed))]
    if candidates is not None:
        _check_candidates(candidates, asked)
    if logits and not (candidates and _asks_for_one_token(asked)):
        raise invalid("logits are told of a single request for one token, with 1 candidate or more", "logits")
    return TraceRequest(asked, candidates, texts, logits, progress, cache_salt, priority)


def _asked_at(
    listed: Sequence[Any],
    place: int,
    defaults: GenerationParams,
    settings: ServerSettings,
    models: Sequence[str],
) -> Asked:
    """Returns a request of several; the error of one of its parameters then names the request too."""
    name = f"requests[{place}]"
    try:
        return _asked(listed[place], name, defaults, settings, models)
    except ApiError as error:
        if len(listed) > 1 and not (error.param or "").startswith(name):
            error.param = f"{name}.params.{error.param}" if error.param else name
        raise


def _asked(
    given: Any, place: str, defaults: GenerationParams, settings: ServerSettings, models: Sequence[str]
) -> Asked:
    if not isinstance(given, dict):
        raise invalid(f"{place} must be an object", place)
    fields = Fields(given, f"{place}.")
    prompt = fields.raw("prompt")
    # Not by `take`, for which null is absent: a null among the parameters is a value.
    plain = fields.take("params", dict, {})
    if plain.get("grammar") is not None:
        check_schema(plain["grammar"], f"{place}.params.grammar", settings.limits)
    generated = fields.take("generated", int, 0)
    stream = fields.raw("stream")
    suffix = fields.raw("suffix")
    fields.close(lenient=settings.lenient)
    ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if suffix is not None and not (isinstance(suffix, str) and isinstance(prompt, str)):
        raise invalid("prompt and suffix must be texts, between which a text is filled in", f"{place}.suffix")
    if not (prompt or suffix) or not (isinstance(prompt, str) or ids):
        raise invalid("a prompt must be a text or token ids, and not empty", f"{place}.prompt")
    try:
        params = params_from_plain(plain, defaults, models=models)
    except DecoderyError as error:
        raise api_error(error, f"{place}.params") from None
    if plain.get("max_tokens") is None:
        params = _within(params, settings.limits)
    check_limits(params, settings.limits)
    if generated and not (isinstance(prompt, list) and 0 < generated < len(prompt)):
        raise invalid(
            "generated counts ids at the end of a prompt of token ids, less than all", f"{place}.generated"
        )
    if stream is not None:
        _check_stream(stream, params, f"{place}.stream")
    return Asked(prompt, params, generated, stream, suffix)


def _check_stream(stream: Any, params: GenerationParams, place: str) -> None:
    if type(stream) is not int or not 0 <= stream < params.streams:
        raise invalid(f"stream must be a completion of the parameters, 0 to {params.streams - 1}", place)
    if params.seed is None or isinstance(params.strategy, (BeamSearch, StochasticBeamSearch)):
        raise invalid("stream needs a seed, and completions that are no beams", place)


def _within(params: GenerationParams, limits: RequestLimits) -> GenerationParams:
    """Returns the parameters with at most the server's limit of tokens, for a client that gave no number."""
    most, wanted = limits.max_tokens, params.max_tokens
    if most is None or (wanted is not None and wanted <= most):
        return params
    return params.replace(max_tokens=most, min_tokens=min(params.min_tokens, most))


def _check_candidates(candidates: Any, asked: Sequence[Asked]) -> None:
    if type(candidates) is not int or candidates < 0:
        raise invalid("candidates must be a whole number from 0 on", "candidates")
    if candidates > MOST_CANDIDATES and not _asks_for_one_token(asked):
        raise invalid(
            f"candidates is at most {MOST_CANDIDATES}; a single request for one token may have all",
            "candidates",
        )


def _asks_for_one_token(asked: Sequence[Asked]) -> bool:
    """True if there is one choice to tell: of one completion, after the tokens that it has already."""
    if len(asked) != 1 or asked[0].params.max_tokens is None:
        return False
    [one] = asked
    return one.runs.max_tokens == one.generated + 1 and one.runs.width == 1


def _prepared(asked: Sequence[Asked], intake: Intake, salt: bytes, most: int | None) -> list[Prepared | str]:
    """Returns each request as an engine takes it, or why it is refused; raises that for a single one."""
    found: list[Prepared | str] = []
    for one in asked:
        try:
            if most is not None and not isinstance(one.prompt, str) and len(one.prompt) > most:
                raise RequestError(f"a prompt has at most {most} tokens here")
            prepared = one.prepared(intake, salt)
            if most is not None and len(prepared.token_ids) > most:
                raise RequestError(f"a prompt has at most {most} tokens here")
            found.append(prepared)
        except DecoderyError as error:
            if len(asked) == 1:
                place = "params" if isinstance(error, ParameterError) else "prompt"
                raise api_error(error, f"requests[0].{place}") from None
            found.append(api_error(error).message)
    return found


async def trace(service: Service, request: Request) -> ASGIApp:
    """Answers `POST /trace`."""
    body = await service.read(request)
    with ActiveRequest(service, request, body.get("model")) as active:
        model = await active.open()
        asked = read_trace_request(
            body, model.llm.default_params, service.settings, model.llm.intake.second_models
        )
        salt = service.salt(request.scope, asked.cache_salt)
        found = await active.prepare(
            partial(_prepared, asked.requests, model.llm.intake, salt, service.settings.limits.prompt_tokens),
            grammar=sum(grammar_size(one.params.grammar) for one in asked.requests),
            param="prompt",
        )
        answer = TraceAnswer(asked, found, model)
        generation = await active.start(
            answer.runnable,
            priority=asked.priority,
            tells_progress=asked.progress,
            candidates=asked.candidates or 0,
            shows_logits=asked.logits,
            observer=answer.observer if asked.candidates is not None else None,
            fits=False,
            apart=True,
        )
        if len(asked.requests) == 1 and generation.refused:
            raise generation.refused[0]
        answer.generation = generation
        return active.stream(generation, answer)


class TraceAnswer:
    """Writes the lines of a trace. `generation` must be set before they are asked for."""

    generation: Generation

    def __init__(self, asked: TraceRequest, found: Sequence[Prepared | str], model: ServedModel) -> None:
        self._asked = asked
        self._found = found
        self._model = model
        self._writer = TraceWriter(model.llm.tokenizer)
        self._places = [place for place, one in enumerate(found) if isinstance(one, Prepared)]
        self._events: list[Line] = []

    @property
    def runnable(self) -> list[Prepared]:
        """Returns the requests that an engine can take."""
        return [one for one in self._found if isinstance(one, Prepared)]

    def observer(self, prompt: int) -> Observer:
        """Returns the observer of a runnable request: its events wait for the next call."""
        place = self._places[prompt]

        def observe(event: Event) -> None:
            self._events.append(EventLine(replace(event, request=place)))

        return observe

    def opening(self) -> bytes:
        """Returns the header."""
        defaults = self._model.llm.default_params
        requests = tuple(
            _traced(output, asked, found, defaults)
            for output, asked, found in zip(self._outputs(), self._asked.requests, self._found, strict=True)
        )
        header = Header(VERSION, self._model.name, self._model.llm.tokenizer.vocab_size, requests)
        return self._encoded([header])

    def _outputs(self) -> list[RequestOutput]:
        """Returns the outputs as they are now, in the order of the requests."""
        ran = iter(self.generation.finished())
        outputs = [
            next(ran) if isinstance(one, Prepared) else _refused(asked, one)
            for one, asked in zip(self._found, self._asked.requests, strict=True)
        ]
        for output, asked in zip(outputs, self._asked.requests, strict=True):
            if asked.stream is not None:
                # What runs has the seed of the completion; with that of the request one gets it again.
                output.seed = asked.params.seed or 0
            if asked.params.logprobs is None:
                # `best_of` has them computed.
                for completion in output.completions:
                    completion.logprobs = None
        return outputs

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns the lines for what a step added."""
        lines = self._taken()
        if self._asked.texts:
            lines += [self._text(self._places[a.prompt], a.event) for a in additions]
        return self._encoded(lines)

    def _text(self, place: int, event: StreamEvent) -> TextLine:
        wants = self._asked.requests[place].params.logprobs is not None
        return TextLine(place, event if wants else replace(event, logprobs=()))

    def progress(self) -> bytes:
        """Returns the lines of prompts that have advanced and of events that add no tokens, as of beams."""
        advanced, self.generation.progress = self.generation.progress, {}
        lines: list[Line] = [ProgressLine(self._places[prompt], one) for prompt, one in advanced.items()]
        return self._encoded([*lines, *self._taken()])

    def ping(self) -> bytes:
        """Returns a comment, which keeps a waiting stream alive."""
        return PING

    def failed(self, error: ApiError) -> bytes:
        """Returns the line of an error, the last one."""
        return self._encoded([ErrorLine(error.body()["error"])])

    def closing(self) -> bytes:
        """Returns the lines of the outputs, and the last line."""
        lines = self._taken()
        for place, output in enumerate(self._outputs()):
            if self._asked.texts:
                # The lines before have told them.
                output = replace(output, completions=[], prompt_logprobs=None)
            lines.append(OutputLine(place, output))
        return self._encoded([*lines, EndLine()])

    def _taken(self) -> list[Line]:
        events, self._events = self._events, []
        return events

    def _encoded(self, lines: Sequence[Line]) -> bytes:
        texts = [text for line in lines for text in self._writer.lines(line)]
        return "".join(f"data: {text}\n\n" for text in texts).encode()


def _traced(
    output: RequestOutput, asked: Asked, found: Prepared | str, defaults: GenerationParams
) -> TracedRequest:
    """Returns what was asked, with parameters that are the same ones whichever defaults a reader has."""
    params, text = asked.params, ""
    if isinstance(found, Prepared):
        text = found.generated_text
        if asked.suffix is not None:
            # The tokens that end what is filled in are part of what must be asked to get it again.
            params = params.replace(stop_token_ids=found.params.stop_token_ids)
    return TracedRequest(
        output.prompt,
        tuple(output.prompt_token_ids),
        output.seed,
        params_to_plain(params) | params_to_plain(params, defaults),
        asked.generated,
        asked.stream,
        text,
    )


def _refused(asked: Asked, error: str) -> RequestOutput:
    text = asked.prompt if isinstance(asked.prompt, str) else None
    ids = [] if isinstance(asked.prompt, str) else asked.prompt
    return RequestOutput(text, ids, [], asked.params.seed or 0, error=error)


async def describe_model(service: Service, request: Request) -> Response:
    """Answers `GET /trace`: what a client needs to know of a model before it asks."""
    with await service.use(request, request.query_params.get("model"), "decoder") as model:
        llm = model.llm
        answer = {
            "version": VERSION,
            "model": model.name,
            "vocab_size": llm.tokenizer.vocab_size,
            "capacity": llm.capacity,
            "layers": llm.model.depth,
            "has_chat_template": llm.has_chat_template,
            "can_infill": llm.intake.can_infill,
            "default_params": params_to_plain(llm.default_params),
            "second_models": list(llm.intake.second_models),
            "arguments": model.arguments,
        }
    return json_response(answer)
