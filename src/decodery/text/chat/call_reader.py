"""Reads calls of tools from the text of a reply, as it arrives."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass

from decodery.text.chat.tool_formats import ToolFormat

_ALPHANUMERICS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Content:
    """Holds a piece of the visible text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Holds a piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Begins a call; `index` counts the calls of the reply."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Holds a piece of the arguments of the call that began last, as JSON text."""

    index: int
    text: str


Part = Content | Reasoning | CallStart | CallArguments


def new_call_id(*, short: bool) -> str:
    """Returns a random id: 9 letters and digits if `short`, as Mistral's templates demand."""
    if short:
        return "".join(secrets.choice(_ALPHANUMERICS) for _ in range(9))
    return f"call_{secrets.token_hex(12)}"


class CallReader:
    """Reads the raw text of calls, which arrives in pieces of any size.

    Text that is no call of the format becomes content, so that nothing is lost.
    """

    def __init__(self, form: ToolFormat, *, short_ids: bool = False) -> None:
        self._form = form
        self._short_ids = short_ids
        self._held = ""
        # What was taken since the last part: text of the format, or content if no call follows.
        self._taken = ""
        self._count = 0
        self._json = JsonScanner()
        self._step: Callable[[], list[Part] | None] = self._begin

    @property
    def complete(self) -> bool:
        """True if there are calls, and the last one has ended."""
        return self._count > 0 and self._step == self._next

    def feed(self, text: str) -> list[Part]:
        """Returns the parts that more of the text completes."""
        self._held += text
        parts: list[Part] = []
        while self._held:
            found = self._step()
            if found is None:
                break
            parts += found
        return parts

    def _take(self, *texts: str) -> bool | None:
        """Removes one of these texts from the beginning of what is held.

        Returns True, False if none is there, and None if that is not known yet.
        """
        for text in sorted(texts, key=len, reverse=True):
            if self._held.startswith(text):
                self._held = self._held[len(text) :]
                self._taken += text
                return True
            if text.startswith(self._held):
                return None
        return False

    def _goes(self, taken: bool | None, step: Callable[[], list[Part] | None]) -> list[Part] | None:
        if taken is None:
            return None
        self._step = step if taken else self._broken
        return []

    def _begin(self) -> list[Part] | None:
        form = self._form
        taken = self._take(form.begin + form.opening)
        return self._goes(taken if form.marked or taken is None else True, self._head)

    def _head(self) -> list[Part] | None:
        return self._goes(self._take(*self._form.heads), self._name)

    def _name(self) -> list[Part] | None:
        name, boundary, _ = self._held.partition(self._form.middle[:1])
        if not boundary:
            return None
        self._held = self._held[len(name) :]
        self._step = self._middle
        self._count += 1
        self._taken = ""
        return [CallStart(self._count - 1, new_call_id(short=self._short_ids), name)]

    def _middle(self) -> list[Part] | None:
        self._json = JsonScanner()
        return self._goes(self._take(self._form.middle), self._arguments)

    def _arguments(self) -> list[Part] | None:
        end = self._json.read(self._held)
        text, self._held = self._held[:end], self._held[end:]
        self._taken = ""
        if self._json.done:
            self._step = self._tail if self._form.tail else self._next
        return [CallArguments(self._count - 1, text)]

    def _tail(self) -> list[Part] | None:
        taken = self._take(self._form.tail)
        if taken:
            self._taken = ""
        return self._goes(taken, self._next)

    def _next(self) -> list[Part] | None:
        if self._form.end and self._take(self._form.end):
            return []
        if self._form.separator is None:
            return self._goes(False, self._head)
        return self._goes(self._take(self._form.separator), self._head)

    def _broken(self) -> list[Part] | None:
        text, self._held, self._taken = self._taken + self._held, "", ""
        return [Content(text)]


class JsonScanner:
    """Finds the end of a JSON object in a text that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self.done = False

    def read(self, text: str) -> int:
        """Returns how many characters of this text belong to the object; `done` if it ends with them."""
        for place, character in enumerate(text):
            if self._quoted:
                self._read_quoted(character)
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.done = True
                    return place + 1
        return len(text)

    def _read_quoted(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._quoted = False
