"""Defines the lines of a trace, writes them and reads them. `docs/trace.md` describes the format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from decodery.decoding.chosen import TokenLogprobs
from decodery.decoding.event import Event, PromptProgress
from decodery.decoding.trace import Considered
from decodery.errors import DecoderyError
from decodery.outputs import RequestOutput, StreamEvent
from decodery.text.streaming.token_texts import TokenTexts
from decodery.wire.choice_text import choices_text
from decodery.wire.known_tokens import KnownTokens
from decodery.wire.plain_forms import FormError, from_plain, plain_fields, to_plain

VERSION = 1
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """Holds what was asked: `params` have the form of `params_to_plain`.

    The last `generated` ids of the prompt are the beginning of the text; `generated_text` is as much of it as
    the same request had shown. The trace has the completion `stream` alone, if that is not None.
    """

    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    seed: int
    params: Mapping[str, Any]
    generated: int = 0
    stream: int | None = None
    generated_text: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """Begins a trace. The other lines name requests by their places in `requests`."""

    version: int
    model: str
    vocab_size: int
    requests: tuple[TracedRequest, ...]


@dataclass(frozen=True, slots=True)
class SpelledTokens:
    """Holds the bytes, in hexadecimal, of tokens that later lines name, and which of them are special."""

    tokens: tuple[tuple[int, str], ...]
    special: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """Holds how much of a request's prompt is computed."""

    request: int
    progress: PromptProgress


@dataclass(frozen=True, slots=True)
class EventLine:
    """Holds an event of the engine; its `request` is a place in the header."""

    event: Event


@dataclass(frozen=True, slots=True)
class TextLine:
    """Holds what a step added to the text of a completion."""

    request: int
    event: StreamEvent


@dataclass(frozen=True, slots=True)
class OutputLine:
    """Holds the whole output of a request that has ended."""

    request: int
    output: RequestOutput


@dataclass(frozen=True, slots=True)
class EndLine:
    """Ends a trace that is complete."""


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """Ends a trace that failed: `error` is OpenAI's error object."""

    error: Mapping[str, Any]


Line = Header | SpelledTokens | ProgressLine | EventLine | TextLine | OutputLine | EndLine | ErrorLine
_KINDS: Mapping[str, type[Line]] = {
    "trace": Header,
    "tokens": SpelledTokens,
    "progress": ProgressLine,
    "event": EventLine,
    "text": TextLine,
    "output": OutputLine,
    "end": EndLine,
    "error": ErrorLine,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def written(line: Line) -> str:
    """Returns a line as JSON, without a line end."""
    if isinstance(line, EventLine) and line.event.considered:
        rest = _dumps({"kind": "event", "event": plain_fields(line.event, ("considered",))})
        return f'{rest[:-2]},"considered":{choices_text(line.event.considered)}}}}}'
    return _dumps({"kind": _NAMES[type(line)], **to_plain(line)})


class TraceWriter:
    """Writes the lines of one trace; each token that they name is spelled once, in a line before."""

    def __init__(self, tokenizer: TokenTexts) -> None:
        self._tokenizer = tokenizer
        self._spelled: set[int] = set()

    def lines(self, line: Line) -> list[str]:
        """Returns the line, with another one for the tokens that are named for the first time."""
        # The header is the first line, so what it names is spelled after it.
        named, own = self._spelling(_named(line)), [written(line)]
        return own + named if isinstance(line, Header) else named + own

    def _spelling(self, tokens: Iterable[int]) -> list[str]:
        """Returns the line of those of the tokens that no line has spelled; none if all are spelled."""
        new = [token for token in dict.fromkeys(tokens) if token not in self._spelled]
        if not new:
            return []
        self._spelled.update(new)
        spelled = tuple((token, self._tokenizer.token_bytes(token).hex()) for token in new)
        special = tuple(token for token in new if token in self._tokenizer.special_ids)
        return [written(SpelledTokens(spelled, special))]


def _named(line: Line) -> Iterator[int]:
    """Yields the tokens that a line names; of prompts, only those that are generated or have scores."""
    if isinstance(line, Header):
        for request in line.requests:
            if request.generated:
                yield from request.prompt_token_ids[-request.generated :]
    elif isinstance(line, EventLine):
        event = line.event
        yield from event.tokens
        yield from event.drafts
        yield from _scored(event.logprobs)
        yield from _scored(event.prompt_logprobs or ())
        for considered in event.considered:
            yield from _weighed(considered)
        for candidate in event.beams:
            yield candidate.token
    elif isinstance(line, TextLine):
        yield from line.event.token_ids
        yield from _scored(line.event.logprobs)
    elif isinstance(line, OutputLine):
        for completion in line.output.completions:
            yield from completion.token_ids
            yield from _scored(completion.logprobs or ())
        if line.output.prompt_logprobs is not None:
            yield from line.output.prompt_token_ids
            yield from _scored(line.output.prompt_logprobs)


def _scored(logprobs: Iterable[TokenLogprobs | None]) -> Iterator[int]:
    for entry in logprobs:
        if entry is not None:
            yield entry.token
            for token, _ in entry.top:
                yield token


def _weighed(considered: Considered) -> Iterator[int]:
    yield considered.token
    yield from considered.allowed_tokens
    yield from (candidate.token for candidate in considered.candidates)
    yield from (weighed.token for weighed in considered.weighed)


class TraceReader:
    """Reads the lines of one trace, and adds the tokens that they spell to `tokens`."""

    def __init__(self, tokens: KnownTokens | None = None) -> None:
        self.tokens = KnownTokens() if tokens is None else tokens
        self.header: Header | None = None

    def read(self, text: str | bytes) -> Line:
        """Returns the line that a text holds. Raises `DecoderyError` if it is none, or of another version."""
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            raise DecoderyError("a line of the trace cannot be read: it is no line of a trace") from None
        return self.take(plain)

    def take(self, plain: Any) -> Line:
        """Returns the line that json.loads has read; raises as `read`."""
        try:
            kind = _KINDS[plain.get("kind", "error")]
            line = from_plain(kind, plain)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, FormError) else "it is no line of a trace"
            raise DecoderyError(f"a line of the trace cannot be read: {reason}") from None
        self._note(line)
        return line

    def _note(self, line: Line) -> None:
        if isinstance(line, Header):
            if line.version != VERSION:
                raise DecoderyError(f"the trace has version {line.version}; version {VERSION} can be read")
            self.header = line
            self.tokens.vocab_size = line.vocab_size
        elif isinstance(line, SpelledTokens):
            special = set(line.special)
            for token, data in line.tokens:
                self.tokens.add(token, _bytes(data), special=token in special)


def _bytes(data: str) -> bytes:
    try:
        return bytes.fromhex(data)
    except ValueError:
        raise DecoderyError("a line of the trace cannot be read: bytes are not hexadecimal") from None
