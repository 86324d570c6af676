"""Finding where a text that arrives piece by piece ends: at a stop string, or at a regular expression."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from decodery.errors import ParameterError


class Match(NamedTuple):
    """A stop string, or what a regular expression matched, that ended after `end` characters of the text just
    read."""

    stop: str
    end: int


class StopMatcher:
    """An automaton over stop strings (Aho and Corasick, 1975): one step a character, however many there are.

    Its state, an integer, stands for the longest end of the text so far that begins some stop string;
    `depth(state)` is its length. State 0 is the start. ParameterError for an empty stop string.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise ParameterError("a stop string must be a str of at least one character")
        self._children: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._ends: list[str | None] = [None]
        self._fallback = [0]
        for stop in stops:
            self._insert(stop)
        self._link()

    def depth(self, state: int) -> int:
        """How many characters at the end of the text may still become a stop string."""
        return self._depth[state]

    def read(self, state: int, text: str) -> tuple[int, Match | None]:
        """The state after `text`, or at the first character that ends a stop string, and that match.

        Of several stop strings that end there the longest is the match.
        """
        for place, character in enumerate(text):
            state = self._step(state, character)
            stop = self._ends[state]
            if stop is not None:
                return state, Match(stop, place + 1)
        return state, None

    def _step(self, state: int, character: str) -> int:
        while True:
            following = self._children[state].get(character)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fallback[state]

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._children[state].get(character)
            if following is None:
                following = len(self._children)
                self._children[state][character] = following
                self._children.append({})
                self._depth.append(self._depth[state] + 1)
                self._ends.append(None)
                self._fallback.append(0)
            state = following
        self._ends[state] = stop

    def _link(self) -> None:
        """Points every state at its longest proper suffix that is a state too, shortest states first."""
        waiting = deque(self._children[0].values())
        while waiting:
            state = waiting.popleft()
            for character, child in self._children[state].items():
                self._fallback[child] = self._step(self._fallback[state], character)
                waiting.append(child)
            if self._ends[state] is None:
                self._ends[state] = self._ends[self._fallback[state]]


def first_match(pattern: re.Pattern[str], before: str, text: str) -> Match | None:
    """Where the regular expression first matches in `before + text`, which has no match up to `before`.

    That is the first character of `text` after which what was read so far holds a match: reading in parts is
    reading at once, even where a longer match would have followed. Each character costs a search.
    """
    whole = before + text
    for end in range(len(before) + 1, len(whole) + 1):
        found = pattern.search(whole, 0, end)
        if found is not None:
            return Match(found.group(), end - len(before))
    return None
