"""Divides the text of a reply, as it arrives, into reasoning, visible content and calls of tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

# Where a reply begins: in reasoning, in content, or before either ("open": it may begin with the mark).
Beginning = Literal["reasoning", "open", "content"]
# The white space that may surround reasoning. It is part of the format.
_SPACE = " \t\r\n"


class Region(NamedTuple):
    """Holds a piece of the raw text and what it is; "mark" is text of the format, which nobody sees."""

    kind: Literal["reasoning", "content", "calls", "mark"]
    text: str


@dataclass(frozen=True, slots=True)
class ReplyMarks:
    """Says which texts divide a reply.

    `reasoning` are the marks around reasoning, if there are any. Calls begin with one of the texts `calls`
    and last until the end of the reply. If `anchored`, they must be the first text of the content.
    """

    reasoning: tuple[str, str] | None = None
    beginning: Beginning = "content"
    calls: tuple[str, ...] = ()
    anchored: bool = False


_Step = tuple[list[Region], str, str]


@dataclass(frozen=True, slots=True)
class Regions:
    """Holds the state of a reply that is divided; immutable.

    `pieces` are those that the last text released; all pieces, joined, are the raw text without what is
    `held`. Held is text that may still become a mark, and white space of which the kind is not known yet.
    Reasoning is stripped of white space, and so is the beginning of the content after it. White space alone
    before a call is no content.
    """

    marks: ReplyMarks
    phase: str
    held: str = ""
    pieces: tuple[Region, ...] = ()

    @property
    def in_reasoning(self) -> bool:
        """True if the text is within reasoning."""
        return self.phase in ("thought", "reasoning")

    @property
    def in_calls(self) -> bool:
        """True if calls have begun."""
        return self.phase == "calls"

    def read(self, text: str) -> Regions:
        """Returns the state after more of the raw text."""
        marks, phase, data = self.marks, self.phase, self.held + text
        pieces: list[Region] = []
        while data:
            before = phase, len(data)
            found, data, phase = _STEPS[phase](marks, data)
            pieces += found
            if (phase, len(data)) == before:
                break
        return Regions(marks, phase, data, tuple(pieces))

    def emptied(self) -> Regions:
        """Returns the state without its pieces."""
        return Regions(self.marks, self.phase, self.held) if self.pieces else self

    def flush(self) -> tuple[Region, ...]:
        """Returns what is held, for a reply that ends here."""
        if not self.held:
            return ()
        if self.phase != "reasoning":
            return (Region("content", self.held),)
        body = self.held.rstrip(_SPACE)
        return _regions(("reasoning", body), ("mark", self.held[len(body) :]))


def begin(marks: ReplyMarks) -> Regions:
    """Returns the state before the first character of a reply."""
    phases = {"reasoning": "thought", "open": "open", "content": "first"}
    return Regions(marks, phases[marks.beginning] if marks.reasoning else "first")


def partial_mark(text: str, marks: tuple[str, ...]) -> int:
    """Returns the length of the longest end of a text that a mark begins with and goes beyond."""
    longest = 0
    for mark in marks:
        end = text[-len(mark) + 1 :] if len(mark) > 1 else ""
        place = end.find(mark[0])
        while place >= 0:
            if mark.startswith(end[place:]):
                longest = max(longest, len(end) - place)
                break
            place = end.find(mark[0], place + 1)
    return longest


def _regions(*found: tuple[str, str]) -> tuple[Region, ...]:
    return tuple(Region(kind, text) for kind, text in found if text)  # type: ignore[arg-type]


def _open(marks: ReplyMarks, data: str) -> _Step:
    """Reads the text before anything visible, which may be the mark that opens reasoning."""
    assert marks.reasoning is not None
    mark = marks.reasoning[0]
    body = data.lstrip(_SPACE)
    if body.startswith(mark):
        end = len(data) - len(body) + len(mark)
        return [Region("mark", data[:end])], data[end:], "thought"
    return [], data, "open" if mark.startswith(body) else "first"


def _thought(marks: ReplyMarks, data: str) -> _Step:
    """Reads white space at the beginning of reasoning."""
    body = data.lstrip(_SPACE)
    space = data[: len(data) - len(body)]
    return list(_regions(("mark", space))), body, "reasoning" if body else "thought"


def _reasoning(marks: ReplyMarks, data: str) -> _Step:
    assert marks.reasoning is not None
    mark = marks.reasoning[1]
    place = data.find(mark)
    if place >= 0:
        body, end = data[:place].rstrip(_SPACE), place + len(mark)
        return list(_regions(("reasoning", body), ("mark", data[len(body) : end]))), data[end:], "after"
    body = data[: len(data) - partial_mark(data, (mark,))].rstrip(_SPACE)
    return list(_regions(("reasoning", body))), data[len(body) :], "reasoning"


def _after(marks: ReplyMarks, data: str) -> _Step:
    """Reads white space between reasoning and content."""
    body = data.lstrip(_SPACE)
    space = data[: len(data) - len(body)]
    return list(_regions(("mark", space))), body, "first" if body else "after"


def _first(marks: ReplyMarks, data: str) -> _Step:
    """Reads the beginning of the content, while it is white space or may be an anchored call."""
    if not marks.calls:
        return [], data, "content"
    body = data.lstrip(_SPACE)
    space = data[: len(data) - len(body)]
    if not marks.anchored:
        place = _earliest(data, marks.calls)
        if place >= 0 and not data[:place].strip(_SPACE):
            return list(_regions(("mark", data[:place]))), data[place:], "calls"
        blank = place < 0 and not data[: len(data) - partial_mark(data, marks.calls)].strip(_SPACE)
        return [], data, "first" if blank else "content"
    if any(body.startswith(mark) for mark in marks.calls):
        return list(_regions(("mark", space))), body, "calls"
    return [], data, "first" if any(mark.startswith(body) for mark in marks.calls) else "content"


def _content(marks: ReplyMarks, data: str) -> _Step:
    if marks.anchored or not marks.calls:
        return list(_regions(("content", data))), "", "content"
    place = _earliest(data, marks.calls)
    if place >= 0:
        return list(_regions(("content", data[:place]))), data[place:], "calls"
    cut = len(data) - partial_mark(data, marks.calls)
    return list(_regions(("content", data[:cut]))), data[cut:], "content"


def _calls(marks: ReplyMarks, data: str) -> _Step:
    return [Region("calls", data)], "", "calls"


def _earliest(text: str, marks: tuple[str, ...]) -> int:
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    return min(places, default=-1)


_STEPS: dict[str, Callable[[ReplyMarks, str], _Step]] = {
    "open": _open,
    "thought": _thought,
    "reasoning": _reasoning,
    "after": _after,
    "first": _first,
    "content": _content,
    "calls": _calls,
}
