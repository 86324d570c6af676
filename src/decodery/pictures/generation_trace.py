"""Collects what the engine reports while a text is generated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import params_from_plain
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.errors import DecoderyError
from decodery.outputs import Completion, RequestOutput, StreamEvent
from decodery.text.streaming.detokenizer import start
from decodery.text.streaming.token_texts import TokenTexts
from decodery.wire.trace_lines import (
    EndLine,
    ErrorLine,
    EventLine,
    Header,
    Line,
    OutputLine,
    TextLine,
    TracedRequest,
    TraceReader,
)


@dataclass(frozen=True)
class Step:
    """Holds one step of a completion: its new tokens, of which the first `accepted` were also drafts.

    `draft_sources` says where each draft comes from, if the engine drafted by itself.
    """

    tokens: tuple[int, ...]
    considered: tuple[Considered, ...] = ()
    drafts: tuple[int, ...] = ()
    accepted: int = 0
    draft_sources: tuple[str, ...] = ()


@dataclass
class GenerationTrace:
    """Holds the trace of one request: the `steps` of each stream, and for a beam search the `beams`.

    `beams` has the candidates of each step. `model` is the name to show. `output` is None until the request
    has ended.
    """

    prompt: str
    model: str
    params: GenerationParams
    tokenizer: TokenTexts
    steps: dict[int, list[Step]] = field(default_factory=dict)
    beams: list[tuple[BeamCandidate, ...]] = field(default_factory=list)
    output: RequestOutput | None = None

    def add(self, event: Event) -> None:
        """Adds the tokens, choices, drafts and beams of an event."""
        if event.beams:
            self.beams.append(event.beams)
        if event.stream is not None and event.tokens:
            step = Step(event.tokens, event.considered, event.drafts, event.accepted, event.draft_sources)
            self.steps.setdefault(event.stream, []).append(step)

    @property
    def completions(self) -> list[Completion]:
        """Returns the completions; none until the request has ended."""
        return [] if self.output is None else self.output.completions

    def settings(self) -> list[tuple[str, str]]:
        """Returns the names and values of the parameters that differ from the defaults, without the seed."""
        defaults = GenerationParams()
        return [
            (f.name, _value_text(getattr(self.params, f.name)))
            for f in fields(self.params)
            if getattr(self.params, f.name) != getattr(defaults, f.name) and f.name != "seed"
        ]

    def pieces(self, tokens: list[int]) -> list[str]:
        """Returns the text that each token completes; "" for a token that ends inside a character."""
        state = start(self.tokenizer, skip_special_tokens=False)
        pieces = []
        for token in tokens:
            state = state.after(token)
            pieces.append(state.piece)
        if pieces:
            pieces[-1] += state.flush()
        return pieces

    def label(self, token: int) -> str:
        """Returns a token's text on one line, with control characters and spaces visible."""
        return self.tokenizer.token_label(token)


def traces_of(lines: Iterable[str]) -> list[GenerationTrace]:
    """Returns the traces of the requests whose run these lines report, in the form of `docs/trace.md`.

    Raises `DecoderyError` if they are no lines of a trace, or if the trace failed or is cut.
    """
    reader = TraceReader()
    collector = TraceCollector(reader.tokens)
    for text in lines:
        collector.take(reader.read(text))
    if not collector.ended:
        raise DecoderyError("the trace is cut: its last line is missing")
    return collector.traces


class TraceCollector:
    """Makes the `traces` of the requests of one trace from its lines; `tokens` spells their tokens.

    `ended` is True after the last line.
    """

    def __init__(self, tokens: TokenTexts) -> None:
        self.traces: list[GenerationTrace] = []
        self.ended = False
        self._tokens = tokens
        self._texts: list[dict[int, Completion]] = []
        self._scores: dict[tuple[int, int | None], float] = {}

    def take(self, line: Line) -> None:
        """Takes the next line. Raises `DecoderyError` for an error, and for a request that is not there."""
        if isinstance(line, Header):
            self.traces = [self._begun(line, request) for request in line.requests]
            self._texts = [{} for _ in line.requests]
        elif isinstance(line, EventLine):
            self._of(line.event.request).add(line.event)
            if line.event.score is not None:
                self._scores[line.event.request, line.event.stream] = line.event.score
        elif isinstance(line, TextLine):
            self._of(line.request)
            _add_text(self._texts[line.request], line.event)
        elif isinstance(line, OutputLine):
            self._of(line.request).output = replace(
                line.output, completions=line.output.completions or self._texts_of(line.request)
            )
        elif isinstance(line, ErrorLine):
            raise DecoderyError(f"the trace failed: {line.error.get('message')}")
        self.ended = isinstance(line, EndLine)

    def _begun(self, header: Header, request: TracedRequest) -> GenerationTrace:
        params = params_from_plain(request.params, models=None)
        return GenerationTrace(request.prompt or "", header.model, params, self._tokens)

    def _of(self, request: int) -> GenerationTrace:
        if not 0 <= request < len(self.traces):
            raise DecoderyError("a line of the trace names a request that is not there")
        return self.traces[request]

    def _texts_of(self, request: int) -> list[Completion]:
        """Returns the completions of a request whose texts were told as they grew, the best first."""
        return [
            replace(completion, score=self._scores.get((request, index)))
            for index, completion in sorted(self._texts[request].items())
        ]

    def cut(self, request: int, seed: int, error: str | None = None) -> None:
        """Gives a request that has not ended the texts that it has as its output, and why it failed."""
        trace = self._of(request)
        if trace.output is None:
            for stream in trace.steps:
                self._texts[request].setdefault(stream, Completion(stream, "", [], "abort"))
            trace.output = RequestOutput(trace.prompt, [], self._texts_of(request), seed, error=error)


def _add_text(texts: dict[int, Completion], event: StreamEvent) -> None:
    """Adds what a step told of a completion; one that nothing has ended yet counts as aborted."""
    one = texts.setdefault(event.index, Completion(event.index, "", [], "abort"))
    one.text += event.text
    one.token_ids += event.token_ids
    one.finish_reason = event.finish_reason or one.finish_reason
    one.stop_reason = event.stop_reason if event.stop_reason is not None else one.stop_reason
    one.error = event.error or one.error


def _value_text(value: object) -> str:
    """Returns a value as text; an object shows only the fields that differ from its defaults."""
    if isinstance(value, tuple) and value and all(callable(item) for item in value):
        return ", ".join(getattr(item, "__name__", "a function") for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
        items = ", ".join(f"{name}={_value_text(item)}" for name, item in given.items())
        return f"{type(value).__name__}({items})"
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
