"""Writes the answers of OpenAI's routes, whole or as a stream of chunks with the same content."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decodery.decoding.trace import BeamCandidate
from decodery.intake import Prepared
from decodery.serving.errors import ApiError
from decodery.serving.generation import Addition, Generation
from decodery.serving.models import ServedModel
from decodery.serving.openai.choices import Choice, Delta, Entry
from decodery.serving.openai.logprobs import token_text
from decodery.serving.openai.params import StreamOptions
from decodery.serving.openai.usage import counted, progress_body
from decodery.serving.sse import DONE, PING, data
from decodery.wire.plain_forms import to_plain

# OpenAI's names of our reasons to finish.
_FINISH = {"time": "length", "abort": "length"}


@dataclass(frozen=True, slots=True)
class Form:
    """Holds how an answer is written: the kinds of its objects, and what it tells besides the text."""

    prefix: str
    whole: str
    chunk: str
    options: StreamOptions
    token_ids: bool


@dataclass(slots=True)
class Written:
    """Holds what is known of one choice; `opened` is True once a chunk of it has been written."""

    prompt: int
    index: int
    choice: Choice
    pieces: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish: str | None = None
    stop_reason: str | int | None = None
    opened: bool = False


class Answer(ABC):
    """Follows the choices of a request and writes them.

    Subclasses say what the content of a choice and of a chunk is.
    """

    def __init__(
        self, form: Form, prepared: Sequence[Prepared], generation: Generation, model: ServedModel
    ) -> None:
        self.form = form
        self.prepared = prepared
        self.generation = generation
        self.tokenizer = model.llm.tokenizer
        self._head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model.name,
        }
        self.choices: dict[tuple[int, int], Written] = {}

    @abstractmethod
    def content(self, choice: Written) -> dict[str, Any]:
        """Returns the whole content of a choice that has ended."""

    @abstractmethod
    def deltas(self, choice: Written, delta: Delta) -> list[dict[str, Any]]:
        """Returns the contents of the chunks for what is new of a choice."""

    @abstractmethod
    def ending(self, choice: Written) -> dict[str, Any]:
        """Returns the content of the chunk that ends a choice."""

    def finish_reason(self, choice: Written) -> str | None:
        """Returns OpenAI's name of the reason for which a choice ended."""
        return None if choice.finish is None else finish_name(choice.finish)

    def take(self, additions: Sequence[Addition]) -> None:
        """Adds what a step added to the choices."""
        for addition in additions:
            self.added(addition)

    def added(self, addition: Addition) -> tuple[Written, Delta]:
        """Adds what a step added to one choice, and returns the choice with what is new of it."""
        key = (addition.prompt, addition.event.index)
        written = self.choices.get(key)
        if written is None:
            written = self.choices[key] = self._new(*key)
        delta = self.kept(written, written.choice.add(addition.event))
        written.pieces.append(delta.text)
        written.entries += delta.entries
        written.token_ids += delta.token_ids
        written.finish = delta.finish_reason
        written.stop_reason = delta.stop_reason
        return written, delta

    def kept(self, choice: Written, delta: Delta) -> Delta:
        """Returns what the answer keeps of what a step added to a choice."""
        return delta

    def _new(self, prompt: int, stream: int) -> Written:
        prepared = self.prepared[prompt]
        plain = prepared.text_state.without_stops()
        place = prompt * prepared.params.choices + stream
        return Written(prompt, place, Choice(plain, prepared.end_ids, len(prepared.echoed)))

    def _choice(self, choice: Written, content: Mapping[str, Any], *, ended: bool) -> dict[str, Any]:
        return {
            "index": choice.index,
            **content,
            "finish_reason": self.finish_reason(choice) if ended else None,
            "stop_reason": choice.stop_reason if ended else None,
        }

    def answer(self) -> dict[str, Any]:
        """Returns the whole answer."""
        choices = []
        for key, choice in sorted(self.choices.items()):
            if key in self.generation.invalid:
                continue
            content = self.content(choice)
            if self.form.token_ids:
                content["token_ids"] = choice.token_ids
                content["prompt_token_ids"] = self.prepared[choice.prompt].token_ids
            choices.append(self._choice(choice, content, ended=True))
        return {**self._head, "object": self.form.whole, "choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        outputs = [collector.output for collector in self.generation.collectors]
        return counted(outputs, sum(c.choice.completion_tokens for c in self.choices.values()))

    def chunk(self, choices: Sequence[Mapping[str, Any]], *, with_usage: bool | None = None) -> bytes:
        """Returns a chunk with these choices; with the usage if each chunk has it."""
        body: dict[str, Any] = {**self._head, "object": self.form.chunk, "choices": choices}
        if self.form.options.continuous_usage if with_usage is None else with_usage:
            body["usage"] = self.usage()
        elif self.form.options.include_usage:
            body["usage"] = None
        return data(body)

    def opening(self) -> bytes:
        """Returns what comes before any text."""
        return b""

    def progress(self) -> bytes:
        """Returns how much of the prompts is computed, and new beams, if they are asked for."""
        progress, beams = dict(self.generation.progress), list(self.generation.beams)
        self.generation.progress.clear()
        self.generation.beams.clear()
        chunks: list[dict[str, Any]] = [
            {"prompt_progress": progress_body(found)} for found in progress.values()
        ]
        chunks += [
            {"object": "decodery.hypotheses", "prompt": prompt, "beams": self._beams(found)}
            for prompt, found in beams
        ]
        head = {**self._head, "object": self.form.chunk, "choices": []}
        return b"".join(data({**head, **chunk}) for chunk in chunks)

    def _beams(self, found: Sequence[BeamCandidate]) -> list[dict[str, Any]]:
        return [{**to_plain(one), "text": token_text(self.tokenizer, one.token)} for one in found]

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns chunks for the choices that grew, and one for each that ended."""
        chunks = []
        for choice, delta in map(self.added, additions):
            contents = self.deltas(choice, delta)
            if self.form.token_ids and delta.token_ids:
                contents = contents or [self.ending(choice)]
                contents[0]["token_ids"] = list(delta.token_ids)
            chunks += [self.chunk([self._choice(choice, content, ended=False)]) for content in contents]
            choice.opened = True
            if choice.finish is not None:
                chunks.append(self.chunk([self._choice(choice, self.ending(choice), ended=True)]))
        return b"".join(chunks)

    def ping(self) -> bytes:
        """Returns a comment."""
        return PING

    def failed(self, error: ApiError) -> bytes:
        """Returns an event with OpenAI's error object."""
        return data(error.body())

    def closing(self) -> bytes:
        """Returns the chunk with the usage, if it is asked for, and the end mark."""
        return (self.chunk([], with_usage=True) if self.form.options.include_usage else b"") + DONE


def finish_name(reason: str) -> str:
    """Returns OpenAI's name of a reason to finish."""
    return _FINISH.get(reason, reason)
