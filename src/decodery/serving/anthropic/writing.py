"""Writes a reply as a message of Anthropic's API, whole or as a stream of events."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from decodery.serving.errors import ApiError, anthropic_body
from decodery.serving.generation import Addition
from decodery.serving.openai.answers import Written
from decodery.serving.openai.chat import ChatAnswer, Started
from decodery.serving.sse import named
from decodery.text.chat.call_reader import CallArguments, CallStart, Content, Part, Reasoning

Event = dict[str, Any]


class MessageAnswer(ChatAnswer):
    """Writes a reply into the content of a message, block by block, and tells each change as an event."""

    def __init__(self, started: Started) -> None:
        super().__init__(started)
        self._message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": started.model.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        self._started = False
        self._block: dict[str, Any] | None = None
        self._index = -1
        self._texts: list[str] = []

    def take(self, additions: Sequence[Addition]) -> None:
        """Adds what a step added to the message."""
        self._events(additions)

    def _events(self, additions: Sequence[Addition]) -> list[Event]:
        events: list[Event] = []
        for addition in additions:
            choice, _ = self.added(addition)
            for part in self.fresh(choice.index):
                events += self._part(part)
            if choice.finish is not None:
                events += self._finish(choice)
        return events

    def _part(self, part: Part) -> list[Event]:
        match part:
            case Content(text):
                return [*self._begun("text", text=""), self._delta("text_delta", "text", text)]
            case Reasoning(text):
                begun = self._begun("thinking", thinking="", signature="")
                return [*begun, self._delta("thinking_delta", "thinking", text)]
            case CallStart(_, call, name):
                return [*self._closed(), *self._begun("tool_use", id=call, name=name, input={})]
            case CallArguments(_, text):
                return [self._delta("input_json_delta", "partial_json", text)]

    def _begun(self, kind: str, **fields: Any) -> list[Event]:
        """Begins a block of this kind, unless one is open; ends an open one of another kind."""
        if self._block is not None and self._block["type"] == kind:
            return []
        events = self._closed()
        self._block = {"type": kind, **fields}
        self._texts = []
        self._index += 1
        return [*events, self._event("content_block_start", content_block=dict(self._block))]

    def _delta(self, kind: str, name: str, text: str) -> Event:
        self._texts.append(text)
        return self._event("content_block_delta", delta={"type": kind, name: text})

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "index": self._index, **fields}

    def _closed(self) -> list[Event]:
        """Ends the open block, if there is one, and adds it to the message.

        A call that was cut is not added: its arguments are no JSON.
        """
        block, text = self._block, "".join(self._texts)
        if block is None:
            return []
        self._block = None
        if block["type"] == "tool_use":
            arguments = _arguments(text)
            if arguments is not None:
                self._message["content"].append({**block, "input": arguments})
        else:
            self._message["content"].append({**block, block["type"]: text})
        return [self._event("content_block_stop")]

    def _finish(self, choice: Written) -> list[Event]:
        events = self._closed()
        called = any(isinstance(part, CallStart) for part in self.parts(choice.index))
        stop_reason, stop_sequence = "end_turn", None
        if self.finish_reason(choice) == "length":
            stop_reason = "max_tokens"
        elif called:
            stop_reason = "tool_use"
        elif isinstance(choice.stop_reason, str):
            stop_reason, stop_sequence = "stop_sequence", choice.stop_reason
        ending = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        self._message |= ending
        return [
            *events,
            {"type": "message_delta", "delta": ending, "usage": self._message_usage()},
            {"type": "message_stop"},
        ]

    def _message_usage(self) -> dict[str, int]:
        """Returns the numbers of tokens; those of the prompt are three that add up to it."""
        usage = self.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        }

    def message(self) -> dict[str, Any]:
        """Returns the whole message."""
        return {**self._message, "usage": self._message_usage()}

    def opening(self) -> bytes:
        """Returns nothing: the first event tells how much of the prompt was cached, which is known later."""
        return b""

    def progress(self) -> bytes:
        """Returns the event that begins a message, once the prompt is being computed."""
        progress = self.generation.progress.get(0)
        return b"" if progress is None else self._start(progress.cached)

    def _start(self, cached: int) -> bytes:
        """Returns the first event, with a ping after it, unless it has been sent."""
        if self._started:
            return b""
        self._started = True
        usage = {
            "input_tokens": len(self.prepared[0].token_ids) - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": 0,
        }
        begun = {**self._message, "usage": usage}
        return named({"type": "message_start", "message": begun}) + named({"type": "ping"})

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns the events of what a step added."""
        cached = self.generation.collectors[0].output.cached_tokens
        begun = self._start(cached) if additions else b""
        return begun + b"".join(named(event) for event in self._events(additions))

    def ping(self) -> bytes:
        """Returns the interface's own event that keeps a stream alive, behind the first event if need be."""
        return self._start(0) or named({"type": "ping"})

    def failed(self, error: ApiError) -> bytes:
        """Returns the event of an error."""
        return named(anthropic_body(error))

    def closing(self) -> bytes:
        """Returns nothing: the last event has ended the message."""
        return b""


def _arguments(text: str) -> dict[str, Any] | None:
    """Returns the arguments of a call; None if it was cut."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
