"""Collects the outputs of a request from the engine's events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from decodery.decoding.chosen import TokenLogprobs
from decodery.decoding.event import Event
from decodery.decoding.json_schema.schema_check import Problem
from decodery.decoding.request.params import GenerationParams
from decodery.outputs import Completion, EndReason, Observer, RequestOutput, StreamEvent
from decodery.text.streaming.detokenizer import TextState


@dataclass(slots=True)
class _Stream:
    state: TextState
    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: EndReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    score: float | None = None


class Collector:
    """Collects a request's events into its output, and into `pending`, the stream events not yet yielded.

    `start` is the state of the text before the first token. `end_ids` are the tokens that end the text.
    `check` returns what is wrong with a text that has ended, or None. `echoed` is put in front of the text of
    every completion.
    """

    def __init__(
        self,
        output: RequestOutput,
        params: GenerationParams,
        start: TextState,
        end_ids: frozenset[int],
        observer: Observer | None,
        check: Callable[[str], Problem | None] | None = None,
        echoed: str = "",
    ) -> None:
        self.observer = observer
        self._check = check
        self._warned = False
        self.params = params
        self.end_ids = end_ids
        self.streams = [_Stream(start) for _ in range(params.streams)]
        self._echoed = echoed
        self.output = output
        self.pending: deque[StreamEvent] = deque()

    @property
    def done(self) -> bool:
        """True if every stream has ended."""
        return all(s.finish is not None for s in self.streams)

    def checks(self, event: Event) -> bool:
        """True if `take` will check a whole text, which may take a while."""
        return self._check is not None and event.stream is not None and event.finish == "stop"

    def take(self, event: Event) -> None:
        """Adds an event to its stream; ignores an event without a stream."""
        if event.stream is None:
            return
        stream = self.streams[event.stream]
        text = self._text(stream, event)
        if not stream.pieces:
            text = self._echoed + text
        stream.pieces.append(text)
        stream.tokens += event.tokens
        stream.logprobs += event.logprobs
        stream.finish = event.finish
        if event.finish == "stop":
            self._check_text(stream)
        stream.score = event.score
        if event.prompt_logprobs is not None:
            self.output.prompt_logprobs = list(event.prompt_logprobs)
        self.output.cached_tokens = event.cached_tokens
        if event.error is not None:
            self.output.error = event.error
        self.pending.append(
            StreamEvent(
                event.stream,
                text,
                event.tokens,
                event.logprobs,
                stream.finish,
                stream.stop_reason,
                stream.error,
                () if self._warned else self.output.warnings,
            )
        )
        self._warned = True

    def _check_text(self, stream: _Stream) -> None:
        """Makes "invalid" the reason of a text that breaks its schema."""
        problem = None if self._check is None else self._check("".join(stream.pieces)[len(self._echoed) :])
        if problem is None or (problem.keyword == "json" and self._may_be_cut()):
            return
        stream.finish, stream.error = "invalid", str(problem)

    def _may_be_cut(self) -> bool:
        """True if the caller's own stops can end a text before it is whole."""
        params = self.params
        return bool(params.stop or params.stop_token_ids or params.stop_regex or params.stop_when)

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
                error=stream.error,
            )
            for index, stream in enumerate(self.streams)
        ]
        self.output.completions = completions
        return self.output
