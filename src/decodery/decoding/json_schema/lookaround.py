"""Searches with regular expressions that have look-around, in a time bounded by the text's length.

RE2 has no look-around, and a backtracking search may take for ever. Here all threads of a search move through
the text together (Thompson, Regular Expression Search Algorithm, 1968), and the result of each assertion at
each place is found once. Single characters and classes are those of RE2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from decodery.errors import ParameterError
from decodery.text.streaming.stops import compile_regex

_MOST_CODE = 5000
_DEEPEST = 50
_ATOM = re.compile(
    r"\[\^?\]?(?:\\.|\[:\w+:\]|[^\\\]])*\]|\\[xu]\{[0-9a-fA-F]+\}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[pP](?:\{[^}]*\}|.)|\\.|.",
    re.DOTALL,
)
_REPEAT = re.compile(r"(?:[*+?]|\{([0-9]{1,5})(,?)([0-9]{0,5})\})\??")
_LOOK = {"(?=": (True, False), "(?!": (True, True), "(?<=": (False, False), "(?<!": (False, True)}

# What a pattern is compiled to: functions that add instructions.
_Part = Callable[["_Code"], None]


class CannotSearchError(ParameterError):
    """Reports a regular expression that cannot be searched for here."""


def in_re2(pattern: str) -> str:
    """Returns a pattern with code points as RE2 writes them."""
    return re.sub(
        r"(\\\\)|\\u(?:\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{4}))",
        lambda found: found[1] or f"\\x{{{found[2] or found[3]}}}",
        pattern,
    )


@dataclass(frozen=True, slots=True)
class _Instruction:
    """Takes a character of a class, splits into threads, or checks the place."""

    takes: Callable[[str], bool] | None = None
    splits: tuple[int, ...] = ()
    checks: Callable[[_Search, int], bool] | None = None


@dataclass(slots=True)
class _Code:
    """Holds the instructions of a pattern or of an assertion; a match ends behind the last."""

    instructions: list[_Instruction] = field(default_factory=list)

    def add(self, instruction: _Instruction) -> int:
        if len(self.instructions) >= _MOST_CODE:
            raise CannotSearchError("the regular expression is too long")
        self.instructions.append(instruction)
        return len(self.instructions) - 1


class LookaroundRegex:
    """Is a regular expression in the syntax of RE2 and with look-around, but without back-references."""

    def __init__(self, pattern: str) -> None:
        reader = _Reader(pattern)
        self._code = _Code()
        reader.whole()(self._code)

    def search(self, text: str, spend: Callable[[int], None]) -> bool:
        """True if the text contains a match. Calls `spend` with each number of steps taken."""
        return bool(_Search(text, spend).ends(self._code, None))


class _Search:
    """Holds one search: its text, and what is known of the assertions."""

    def __init__(self, text: str, spend: Callable[[int], None]) -> None:
        self.text = text
        self._spend = spend
        self._known: dict[tuple[int, int], bool] = {}
        self._behind: dict[int, set[int]] = {}

    def ends(self, code: _Code, start: int | None, *, all_ends: bool = False) -> set[int]:
        """Returns where matches end that begin at `start`, or anywhere; only one unless `all_ends`."""
        found: set[int] = set()
        threads: set[int] = set()
        done = len(code.instructions)
        for place in range(start or 0, len(self.text) + 1):
            seeds = threads | {0} if start is None or place == start else threads
            threads = self._closed(code, seeds, place)
            self._spend(len(threads) + 1)
            if done in threads:
                found.add(place)
                if not all_ends:
                    break
            if place == len(self.text) or (not threads and start is not None):
                break
            character = self.text[place]
            threads = {
                at + 1
                for at in threads
                if at != done and (takes := code.instructions[at].takes) is not None and takes(character)
            }
        return found

    def _closed(self, code: _Code, seeds: set[int], place: int) -> set[int]:
        """Returns the threads that take a character or are done, reached from these without a character."""
        reached: set[int] = set()
        seen: set[int] = set()
        waiting = list(seeds)
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            instruction = code.instructions[at] if at < len(code.instructions) else None
            if instruction is None or instruction.takes is not None:
                reached.add(at)
            elif instruction.checks is not None:
                if instruction.checks(self, place):
                    waiting.append(at + 1)
            else:
                waiting += instruction.splits
        self._spend(len(seen))
        return reached

    def ahead(self, code: _Code, place: int) -> bool:
        """True if a match begins here."""
        key = (id(code), place)
        if key not in self._known:
            self._known[key] = bool(self.ends(code, place))
        return self._known[key]

    def behind(self, code: _Code, place: int) -> bool:
        """True if a match ends here."""
        if id(code) not in self._behind:
            self._behind[id(code)] = self.ends(code, None, all_ends=True)
        return place in self._behind[id(code)]


class _Reader:
    """Parses a pattern by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> _Part:
        part = self._either()
        if self._at < len(self._pattern):
            raise CannotSearchError("the regular expression has a parenthesis too many")
        return part

    def _either(self) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise CannotSearchError("the regular expression is nested too deep")
        options = [self._sequence()]
        while self._next("|"):
            options.append(self._sequence())
        self._depth -= 1
        return options[0] if len(options) == 1 else partial(_write_either, options)

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            part = self._item()
            found = _REPEAT.match(self._pattern, self._at)
            while found is not None:
                self._at = found.end()
                part = partial(_write_repeat, part, *_bounds(found))
                found = _REPEAT.match(self._pattern, self._at)
            parts.append(part)
        return partial(_write_all, parts)

    def _item(self) -> _Part:
        if self._pattern[self._at] == "(":
            return self._group()
        found = _ATOM.match(self._pattern, self._at)
        assert found is not None
        self._at = found.end()
        return _atom(found[0])

    def _group(self) -> _Part:
        for mark, (ahead, negated) in _LOOK.items():
            if self._next(mark):
                inner = self._closing()
                code = _Code()
                inner(code)
                return partial(_write_look, code, ahead, negated)
        if not self._next("(?:"):
            named = re.match(r"\((?:\?P?<\w+>)?(?!\?)", self._pattern[self._at :])
            if named is None:
                raise CannotSearchError("the regular expression has a group of an unknown kind")
            self._at += named.end()
        return self._closing()

    def _closing(self) -> _Part:
        part = self._either()
        if not self._next(")"):
            raise CannotSearchError("the regular expression lacks a parenthesis")
        return part

    def _next(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    if found[1] is None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0][0]]
    low = int(found[1])
    if not found[2]:
        return low, low
    return low, int(found[3]) if found[3] else None


def _atom(source: str) -> _Part:
    if source == "^":
        return partial(_write_check, lambda search, place: place == 0)
    if source == "$":
        return partial(_write_check, lambda search, place: place == len(search.text))
    if source in (r"\b", r"\B"):
        return partial(
            _write_check, lambda search, place: _at_border(search.text, place) == (source == r"\b")
        )
    if re.fullmatch(r"\\[1-9k]|[*+?]", source):
        raise CannotSearchError("the regular expression has a back-reference or nothing to repeat")
    return partial(_write_set, source)


def _at_border(text: str, place: int) -> bool:
    return _is_word(text[place - 1 : place]) != _is_word(text[place : place + 1])


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def _write_check(checks: Callable[[_Search, int], bool], code: _Code) -> None:
    code.add(_Instruction(checks=checks))


def _write_look(inner: _Code, ahead: bool, negated: bool, code: _Code) -> None:
    def checks(search: _Search, place: int) -> bool:
        return (search.ahead(inner, place) if ahead else search.behind(inner, place)) != negated

    code.add(_Instruction(checks=checks))


def _write_set(source: str, code: _Code) -> None:
    if not source.startswith(("\\", "[", ".")):
        code.add(_Instruction(takes=source.__eq__))
        return
    pattern: Any = compile_regex("pattern", in_re2(source))
    known: dict[str, bool] = {}

    def takes(character: str) -> bool:
        if character not in known:
            known[character] = pattern.fullmatch(character) is not None
        return known[character]

    code.add(_Instruction(takes=takes))


def _write_all(parts: Sequence[_Part], code: _Code) -> None:
    for part in parts:
        part(code)


def _write_either(options: Sequence[_Part], code: _Code) -> None:
    leaves = []
    for option in options[:-1]:
        split = code.add(_Instruction())
        option(code)
        leaves.append(code.add(_Instruction()))
        code.instructions[split] = _Instruction(splits=(split + 1, len(code.instructions)))
    options[-1](code)
    for leave in leaves:
        code.instructions[leave] = _Instruction(splits=(len(code.instructions),))


def _write_repeat(part: _Part, low: int, high: int | None, code: _Code) -> None:
    for _ in range(low):
        part(code)
    if high is None:
        split = code.add(_Instruction())
        part(code)
        code.add(_Instruction(splits=(split,)))
        code.instructions[split] = _Instruction(splits=(split + 1, len(code.instructions)))
        return
    splits = []
    for _ in range(max(high - low, 0)):
        splits.append(code.add(_Instruction()))
        part(code)
    for split in splits:
        code.instructions[split] = _Instruction(splits=(split + 1, len(code.instructions)))
