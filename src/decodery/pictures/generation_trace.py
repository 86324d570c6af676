"""Collects what the engine reports while a text is generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.plain import params_from_plain
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.errors import DecoderyError
from decodery.outputs import Completion, RequestOutput
from decodery.text.streaming.detokenizer import start
from decodery.text.streaming.token_texts import TokenTexts
from decodery.wire.trace_lines import EndLine, ErrorLine, EventLine, Header, OutputLine, TraceReader


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
    traces: list[GenerationTrace] = []
    ended = False
    for text in lines:
        line = reader.read(text)
        if isinstance(line, Header):
            traces = [
                GenerationTrace(
                    request.prompt or "",
                    line.model,
                    params_from_plain(request.params, models=None),
                    reader.tokens,
                )
                for request in line.requests
            ]
        elif isinstance(line, EventLine):
            _of(traces, line.event.request).add(line.event)
        elif isinstance(line, OutputLine):
            _of(traces, line.request).output = line.output
        elif isinstance(line, ErrorLine):
            raise DecoderyError(f"the trace failed: {line.error.get('message')}")
        ended = isinstance(line, EndLine)
    if not ended:
        raise DecoderyError("the trace is cut: its last line is missing")
    return traces


def _of(traces: Sequence[GenerationTrace], request: int) -> GenerationTrace:
    if not 0 <= request < len(traces):
        raise DecoderyError("a line of the trace names a request that is not there")
    return traces[request]


def _value_text(value: object) -> str:
    """Returns a value as text; an object shows only the fields that differ from its defaults."""
    if isinstance(value, tuple) and value and all(callable(item) for item in value):
        return ", ".join(getattr(item, "__name__", "a function") for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
        items = ", ".join(f"{name}={_value_text(item)}" for name, item in given.items())
        return f"{type(value).__name__}({items})"
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
