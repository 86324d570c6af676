"""Writes a reply as a response: an object with items, whole or as a stream of events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decodery.serving.errors import ApiError
from decodery.serving.generation import Addition
from decodery.serving.openai.chat import ChatAnswer, Started
from decodery.serving.openai.logprobs import chat_entries
from decodery.serving.sse import PING, dumps, named
from decodery.text.chat.call_reader import CallArguments, CallStart, Content, Part, Reasoning

Event = dict[str, Any]


def new_response(given: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Returns a response of which nothing has been generated."""
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued" if given.get("background") else "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **given,
    }


class ResponseAnswer(ChatAnswer):
    """Writes a reply into a response, item by item, and tells each change as an event.

    `ended` is called with the response when it has ended.
    """

    def __init__(
        self, started: Started, response: dict[str, Any], ended: Callable[[dict[str, Any]], None]
    ) -> None:
        super().__init__(started)
        self.response = response
        self._ended = ended
        self._item: dict[str, Any] | None = None
        self._number = 0
        self._reasoning_tokens = 0
        self._texts: list[str] = []

    def _event(self, kind: str, **content: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **content}
        self._number += 1
        return event

    def take(self, additions: Sequence[Addition]) -> None:
        """Adds what a step added to the response."""
        self._events(additions)

    def _events(self, additions: Sequence[Addition]) -> list[Event]:
        events: list[Event] = []
        for addition in additions:
            choice, delta = self.added(addition)
            for part in self.fresh(choice.index):
                events += self._part(part)
            if self._item is not None and self._item["type"] == "reasoning":
                self._reasoning_tokens += len(delta.token_ids)
            if self._item is not None and self._item["type"] == "message" and delta.entries:
                self._item["content"][0]["logprobs"] += self._entries(delta.entries)
            if choice.finish is not None:
                events += self._finish(self.finish_reason(choice))
        return events

    def _entries(self, entries: Sequence[Any]) -> list[dict[str, Any]]:
        return [] if self.top is None else chat_entries(self.tokenizer, entries, self.top)

    def _part(self, part: Part) -> list[Event]:
        match part:
            case Content(text):
                return [*self._begun("message"), *self._text("response.output_text.delta", text)]
            case Reasoning(text):
                return [*self._begun("reasoning"), *self._text("response.reasoning_text.delta", text)]
            case CallStart(_, call, name):
                return [*self._closed("completed"), *self._begun("function_call", call_id=call, name=name)]
            case CallArguments(_, text):
                self._texts.append(text)
                return [self._delta("response.function_call_arguments.delta", text)]

    def _text(self, kind: str, text: str) -> list[Event]:
        self._texts.append(text)
        return [self._delta(kind, text, content_index=0)]

    def _delta(self, kind: str, text: str, **more: Any) -> Event:
        assert self._item is not None
        place = {"item_id": self._item["id"], "output_index": len(self.response["output"])}
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "response.output_text.delta" else {}
        return self._event(kind, **place, **more, delta=text, **logprobs)

    def _begun(self, kind: str, **fields: Any) -> list[Event]:
        """Begins an item of this kind, unless one is open; ends an open one of another kind."""
        if self._item is not None and self._item["type"] == kind:
            return []
        events = self._closed("completed")
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        item: dict[str, Any] = {
            "id": f"{prefix}_{secrets.token_hex(12)}",
            "type": kind,
            "status": "in_progress",
            **fields,
        }
        match kind:
            case "message":
                item |= {"role": "assistant", "content": []}
            case "reasoning":
                item |= {"summary": [], "content": []}
            case _:
                item |= {"arguments": ""}
        self._item, self._texts = item, []
        index = len(self.response["output"])
        events.append(self._event("response.output_item.added", output_index=index, item=_copy(item)))
        if kind != "function_call":
            part = _part_of(kind, "")
            item["content"] = [part]
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            events.append(self._event("response.content_part.added", **place, part=_copy(part)))
        return events

    def _closed(self, status: str) -> list[Event]:
        """Ends the open item, if there is one."""
        item = self._item
        if item is None:
            return []
        self._item = None
        index, text = len(self.response["output"]), "".join(self._texts)
        place: dict[str, Any] = {"item_id": item["id"], "output_index": index}
        events = []
        if item["type"] == "function_call":
            item["arguments"] = text
            done = self._event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=text
            )
            events.append(done)
        else:
            part = item["content"][0]
            part["text"] = text
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            more = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
            events.append(self._event(f"response.{kind}.done", **place, content_index=0, text=text, **more))
            done = self._event("response.content_part.done", **place, content_index=0, part=_copy(part))
            events.append(done)
        item["status"] = status
        self.response["output"].append(item)
        events.append(self._event("response.output_item.done", output_index=index, item=_copy(item)))
        return events

    def _finish(self, reason: str | None) -> list[Event]:
        cut = reason == "length"
        events = self._closed("incomplete" if cut else "completed")
        self.response["status"] = "incomplete" if cut else "completed"
        if cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        self.response["usage"] = self._response_usage()
        self._ended(self.response)
        kind = f"response.{self.response['status']}"
        return [*events, self._event(kind, response=_copy(self.response))]

    def _response_usage(self) -> dict[str, Any]:
        usage = self.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": usage["total_tokens"],
        }

    def opening(self) -> bytes:
        """Returns the events that begin a response."""
        kinds = ("response.created", "response.in_progress")
        return b"".join(named(self._event(kind, response=_copy(self.response))) for kind in kinds)

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns the events of what a step added."""
        return b"".join(named(event) for event in self._events(additions))

    def progress(self) -> bytes:
        """Returns nothing: this interface tells no progress."""
        return b""

    def ping(self) -> bytes:
        """Returns a comment."""
        return PING

    def fail(self, error: ApiError) -> None:
        """Ends the response with an error."""
        self.response["status"] = "failed"
        self.response["error"] = {"code": error.code or "server_error", "message": error.message}
        self._ended(self.response)

    def failed(self, error: ApiError) -> bytes:
        """Returns the event of a response that failed."""
        self.fail(error)
        return named(self._event("response.failed", response=_copy(self.response)))

    def closing(self) -> bytes:
        """Returns nothing: the last event has ended the response."""
        return b""


def _part_of(kind: str, text: str) -> dict[str, Any]:
    if kind == "message":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "reasoning_text", "text": text}


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy for an event, which later changes do not reach."""
    found: dict[str, Any] = json.loads(dumps(value))
    return found
