"""Holds the outputs of a request, and collects them from the engine's events."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import FinishReason, TokenLogprobs
from decodery.engine.request import Event
from decodery.text.chat.replies import ReplyFormat, ToolCall
from decodery.text.streaming.detokenizer import TextState

Observer = Callable[[Event], None]


@dataclass(slots=True)
class Completion:
    """Holds one generated text.

    `token_ids` include the end token, or the tokens of the stop string, that ended it. `stop_reason` is the
    stop string or the id of the end token when `finish_reason` is "stop". `score` is the number by which a
    strategy that ranks whole sequences ranked this one.

    The reply to a conversation has `reasoning`, if there is any, and the `tool_calls` that end it; its `text`
    is the visible content, and its finish reason may be "tool_calls".
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | Literal["tool_calls"]
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobs] | None = None
    score: float | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def read(self, form: ReplyFormat) -> None:
        """Divides the raw text of a reply to a conversation."""
        reply = form.reply(self.text, self.finish_reason)
        self.text = reply.content or ""
        self.reasoning, self.tool_calls = reply.reasoning, reply.tool_calls
        if reply.finish_reason == "tool_calls":
            self.finish_reason = "tool_calls"

    @property
    def cumulative_logprob(self) -> float | None:
        """Returns the sum of the tokens' unprocessed log-probabilities, or None without `logprobs`."""
        return None if self.logprobs is None else sum(t.logprob for t in self.logprobs)


@dataclass(slots=True)
class RequestOutput:
    """Holds the completions of one prompt.

    The same request with `seed` gives the same completions. If the request failed, `error` is the reason, and
    the other fields hold what there was until then. `cached_tokens` is the number of prompt tokens that the
    prefix cache had.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    completions: list[Completion]
    seed: int
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    error: str | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Holds what a step added to one completion.

    `text` never ends inside a character, or inside what may become a stop string.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class TextScore:
    """Holds the log-probability of each token of a text given those before it; the first has none."""

    token_ids: list[int]
    logprobs: list[float | None]

    @property
    def total(self) -> float:
        """Returns the log-probability of the text after its first token."""
        return sum(x for x in self.logprobs if x is not None)

    @property
    def perplexity(self) -> float:
        """Returns exp of the mean negative log-probability; infinity for a single token."""
        count = len(self.logprobs) - 1
        return math.exp(min(-self.total / count, 700)) if count else math.inf


@dataclass(slots=True)
class _Stream:
    state: TextState
    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    score: float | None = None


class Collector:
    """Collects a request's events into its output, and into `pending`, the stream events not yet yielded.

    `start` is the state of the text before the first token. `end_ids` are the tokens that end the text.
    """

    def __init__(
        self,
        output: RequestOutput,
        params: GenerationParams,
        start: TextState,
        end_ids: frozenset[int],
        observer: Observer | None,
    ) -> None:
        self.observer = observer
        self.params = params
        self.end_ids = end_ids
        self.streams = [_Stream(start) for _ in range(params.streams)]
        self.output = output
        self.pending: deque[StreamEvent] = deque()

    @property
    def done(self) -> bool:
        """True if every stream has ended."""
        return all(s.finish is not None for s in self.streams)

    def take(self, event: Event) -> None:
        """Adds an event to its stream; ignores an event without a stream."""
        if event.stream is None:
            return
        stream = self.streams[event.stream]
        text = self._text(stream, event)
        stream.pieces.append(text)
        stream.tokens += event.tokens
        stream.logprobs += event.logprobs
        stream.finish = event.finish
        stream.score = event.score
        if event.prompt_logprobs is not None:
            self.output.prompt_logprobs = list(event.prompt_logprobs)
        self.output.cached_tokens = event.cached_tokens
        if event.error is not None:
            self.output.error = event.error
        self.pending.append(StreamEvent(event.stream, text, event.tokens, event.logprobs, event.finish))

    def _text(self, stream: _Stream, event: Event) -> str:
        """Returns the text that an event releases, and updates the state of the stream."""
        text = ""
        for token in event.tokens:
            # An end token is not part of the text.
            if token not in self.end_ids:
                stream.state = stream.state.after(token)
                text += stream.state.piece
        if event.finish is None:
            return text
        if event.finish == "stop":
            ended_by_token = bool(event.tokens) and event.tokens[-1] in self.end_ids
            stream.stop_reason = event.tokens[-1] if ended_by_token else stream.state.stopped
        return text + stream.state.flush()

    def finished(self) -> RequestOutput:
        """Returns the output, with its completions as they are now."""
        wants = self.params.logprobs is not None or self.params.best_of is not None
        completions = [
            Completion(
                index=index,
                text="".join(stream.pieces),
                token_ids=stream.tokens,
                finish_reason=stream.finish or "abort",
                stop_reason=stream.stop_reason,
                logprobs=stream.logprobs if wants else None,
                score=stream.score,
            )
            for index, stream in enumerate(self.streams)
        ]
        self.output.completions = completions
        return self.output
