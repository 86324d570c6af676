"""Finds the end of a text that arrives in pieces: a stop string, or a match of a regular expression."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import re2

from decodery.errors import ParameterError


class Hidden(NamedTuple):
    """Holds the text of a special token that is left out of the displayed text."""

    text: str


# What a text consists of for a stop string: displayed characters, and hidden special tokens.
Symbol = str | Hidden


class Match(NamedTuple):
    """Holds a stop string, or the match of a regular expression, and its `end` in the text just read."""

    stop: Sequence[Symbol]
    end: int

    @property
    def text(self) -> str:
        """Returns the stop string as text."""
        return "".join(part if isinstance(part, str) else part.text for part in self.stop)

    @property
    def shown(self) -> int:
        """Returns how many characters of the stop string are displayed."""
        return sum(isinstance(part, str) for part in self.stop)


class StopMatcher:
    """Finds stop strings with an automaton (Aho and Corasick, 1975).

    The time per symbol does not depend on the number of stop strings. A state is an integer. It represents
    the longest suffix of the symbols so far that is a prefix of some stop string. State 0 is the start. A str
    is a sequence of characters; a stop string with hidden tokens is a sequence that `with_hidden` returns.
    Raises `ParameterError` for an empty stop string.
    """

    def __init__(self, stops: Iterable[Sequence[Symbol]]) -> None:
        self._children: list[dict[Symbol, int]] = [{}]
        self._depth = [0]
        self._ends: list[Sequence[Symbol] | None] = [None]
        self._fallback = [0]
        for stop in stops:
            if not isinstance(stop, Sequence) or not stop:
                raise ParameterError("a stop string must be a str of at least one character")
            self._insert(stop)
        self._link()

    def depth(self, state: int) -> int:
        """Returns how many displayed characters at the end of the text may still become a stop string."""
        return self._depth[state]

    def read(self, state: int, text: Iterable[Symbol]) -> tuple[int, Match | None]:
        """Returns the state after `text` and None, or the state and match at the first end of a stop string.

        If several stop strings end there, the match is the longest.
        """
        for place, symbol in enumerate(text):
            state = self._step(state, symbol)
            stop = self._ends[state]
            if stop is not None:
                return state, Match(stop, place + 1)
        return state, None

    def _step(self, state: int, symbol: Symbol) -> int:
        while True:
            following = self._children[state].get(symbol)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fallback[state]

    def _insert(self, stop: Sequence[Symbol]) -> None:
        state = 0
        for symbol in stop:
            following = self._children[state].get(symbol)
            if following is None:
                following = len(self._children)
                self._children[state][symbol] = following
                self._children.append({})
                self._depth.append(self._depth[state] + isinstance(symbol, str))
                self._ends.append(None)
                self._fallback.append(0)
            state = following
        self._ends[state] = stop

    def _link(self) -> None:
        """Sets each state's fallback, its longest proper suffix that is a state; short states come first."""
        waiting = deque(self._children[0].values())
        while waiting:
            state = waiting.popleft()
            for symbol, child in self._children[state].items():
                self._fallback[child] = self._step(self._fallback[state], symbol)
                waiting.append(child)
            if self._ends[state] is None:
                self._ends[state] = self._ends[self._fallback[state]]


def with_hidden(stops: Iterable[str], hidden: Collection[str]) -> list[tuple[Symbol, ...]]:
    """Returns the stop strings that contain a text of `hidden`, with these texts as `Hidden` symbols.

    Where several of the texts begin at the same character, the longest is the token.
    """
    found = []
    for stop in stops:
        texts = sorted((text for text in hidden if text and text in stop), key=len, reverse=True)
        if texts:
            parts = re.split(f"({'|'.join(map(re.escape, texts))})", stop)
            found.append(
                tuple(s for n, part in enumerate(parts) for s in ((Hidden(part),) if n % 2 else part))
            )
    return found


@cache
def _options() -> Any:
    """Returns RE2's options: errors are raised and not also printed."""
    options = re2.Options()
    options.log_errors = False
    return options


def compile_regex(name: str, pattern: str) -> Any:
    """Returns a compiled regular expression of RE2, whose searches take a time linear in the text.

    Raises `ParameterError` that begins with `name` for a pattern that RE2 cannot read: besides errors of
    syntax these are lookaround, backreferences and possessive repetition, which need a backtracking search
    (Cox, Regular Expression Matching Can Be Simple And Fast, 2007).
    """
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0] if error.args else "RE2 cannot read it"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
    except UnicodeEncodeError:
        reason = "it is not Unicode text"
    raise ParameterError(
        f"{name} is no regular expression of RE2, which searches in linear time: {reason}"
        " (RE2 has no lookaround, backreferences or possessive repetition, repeats up to 1,000 times and has"
        r" \Z as \z and \u00e9 as \x{e9})"
    )


def first_match(pattern: Any, before: str, text: str) -> Match | None:
    """Returns the first match of `compile_regex`'s pattern in `before + text`; `before` has no match.

    The match ends at the first character of `text` up to which the text contains a match, even if more
    characters would make it longer. So the pieces in which a text arrives make no difference. The cost is one
    search for each character.
    """
    whole = before + text
    for end in range(len(before) + 1, len(whole) + 1):
        # A slice, since RE2's `$` does not match at the end of a search that is before the end of the text.
        found = pattern.search(whole[:end])
        if found is not None:
            return Match(found.group(), end - len(before))
    return None
