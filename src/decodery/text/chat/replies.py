"""Parses the replies of chat models: visible content, reasoning and calls of tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decodery.text.chat.call_reader import CallArguments, CallReader, CallStart, Content, Part, Reasoning
from decodery.text.chat.tool_formats import ToolFormat
from decodery.text.streaming.regions import Region, ReplyMarks, begin


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Holds a call of a tool; `arguments` is JSON text, incomplete if the reply was cut."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Holds what the parts of a reply join to.

    `content` is None for a reply of calls alone, `reasoning` for one without reasoning. `finish_reason` is
    the engine's, or "tool_calls".
    """

    content: str | None
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """Says how a model writes the replies to one request.

    `tools` is the format of its calls, if it may call any. If one tool was `named` by the request, a call
    ends with reason "stop", as in OpenAI's interface.
    """

    marks: ReplyMarks
    tools: ToolFormat | None = None
    named: bool = False
    short_ids: bool = False

    @property
    def plain(self) -> bool:
        """True if replies are content alone."""
        return self.marks.reasoning is None and not self.marks.calls

    def parser(self) -> ReplyParser:
        """Returns a parser for one reply."""
        return ReplyParser(self)

    def reply(self, text: str, finish_reason: str) -> Reply:
        """Returns the reply with this raw text, which ended for this reason."""
        parser = self.parser()
        parts = [*parser.feed(text), *parser.finish(finish_reason)]
        return join(parts, parser.finish_reason)


class ReplyParser:
    """Parses one reply, which arrives in pieces of any size; their sizes change no joined text."""

    def __init__(self, form: ReplyFormat) -> None:
        self._form = form
        self._regions = begin(form.marks)
        self._calls = None if form.tools is None else CallReader(form.tools, short_ids=form.short_ids)
        self.finish_reason = "stop"

    def feed(self, text: str) -> list[Part]:
        """Returns the parts that more of the raw text completes."""
        self._regions = self._regions.read(text)
        return self._parts(self._regions.pieces)

    def finish(self, reason: str) -> list[Part]:
        """Returns the last parts, and sets `finish_reason`; `reason` is the engine's."""
        parts = self._parts(self._regions.flush())
        called = self._calls is not None and self._calls.complete and not self._form.named
        self.finish_reason = "tool_calls" if called and reason == "stop" else reason
        return parts

    def _parts(self, pieces: Iterable[Region]) -> list[Part]:
        parts: list[Part] = []
        for kind, text in pieces:
            if kind == "content":
                parts.append(Content(text))
            elif kind == "reasoning":
                parts.append(Reasoning(text))
            elif kind == "calls" and self._calls is not None:
                parts += self._calls.feed(text)
        return parts


def join(parts: Iterable[Part], finish_reason: str) -> Reply:
    """Returns the reply that parts join to."""
    content, reasoning = "", ""
    calls: list[ToolCall] = []
    for part in parts:
        match part:
            case Content(text):
                content += text
            case Reasoning(text):
                reasoning += text
            case CallStart(_, id_, name):
                calls.append(ToolCall(id_, name, ""))
            case CallArguments(index, text):
                last = calls[index]
                calls[index] = ToolCall(last.id, last.name, last.arguments + text)
    return Reply(content if content or not calls else None, reasoning or None, tuple(calls), finish_reason)
