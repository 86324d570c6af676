"""Parses grammars in GBNF, the notation of llama.cpp (its grammars/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decodery.errors import ParameterError

_LAST = 0x10FFFF
_DEEPEST = 100
_MOST_REPEATS = 100_000
_MOST_RULES = 1000
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-", "^": "^"}
_HEX = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Chars:
    """Matches one character in these ranges of code points: sorted, ends included, none touching another."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Matches its items one after another; the empty text if there are none."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Matches any one of its items."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Matches its item `low` to `high` times in a row; `high` None is without bound."""

    item: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches the texts of the rule of this name."""

    name: str


Node = Chars | Sequence | Either | Repeat | Rule


def children(node: Node) -> tuple[Node, ...]:
    """Returns the nodes that a node is made of."""
    if isinstance(node, (Sequence, Either)):
        return node.items
    return (node.item,) if isinstance(node, Repeat) else ()


def rules_used(node: Node) -> Iterator[str]:
    """Yields the names of the rules that a node refers to."""
    if isinstance(node, Rule):
        yield node.name
    for child in children(node):
        yield from rules_used(child)


def read_gbnf(text: str) -> dict[str, Node]:
    """Returns the rules of a grammar by name; texts begin with the rule `root`.

    Alternatives that can never come to an end are left out. Raises `ParameterError`, with line and column,
    where the text is not GBNF; also when a rule is missing or defined twice, or when no text matches.
    """
    rules = _Reader(text).rules()
    if "root" not in rules:
        raise ParameterError("Gbnf cannot be followed: it has no rule 'root', where texts begin")
    for name, node in rules.items():
        for used in rules_used(node):
            if used not in rules:
                raise ParameterError(
                    f"Gbnf cannot be followed: rule {name!r} uses {used!r}, which is missing"
                )
    if len(rules) > _MOST_RULES:
        raise ParameterError(f"Gbnf has more than {_MOST_RULES} rules: too many to be followed")
    ending = _ending(rules)
    if "root" not in ending:
        raise ParameterError("Gbnf matches no text: its root never comes to an end")
    return {name: _pruned(node, ending) for name, node in rules.items() if name in ending}


def _ending(rules: dict[str, Node]) -> set[str]:
    """Returns the rules that match some text."""
    found: set[str] = set()
    while True:
        more = {name for name, node in rules.items() if name not in found and _ends(node, found)}
        if not more:
            return found
        found |= more


def _ends(node: Node, ending: set[str]) -> bool:
    if isinstance(node, Rule):
        return node.name in ending
    if isinstance(node, Chars):
        return bool(node.ranges)
    if isinstance(node, Repeat):
        return node.low == 0 or _ends(node.item, ending)
    return (any if isinstance(node, Either) else all)(_ends(item, ending) for item in node.items)


def _pruned(node: Node, ending: set[str]) -> Node:
    """Returns a node that matches some text, without the alternatives in it that match none."""
    if isinstance(node, Either):
        return Either(tuple(_pruned(item, ending) for item in node.items if _ends(item, ending)))
    if isinstance(node, Sequence):
        return Sequence(tuple(_pruned(item, ending) for item in node.items))
    if isinstance(node, Repeat):
        if node.high == 0 or not _ends(node.item, ending):
            return Sequence(())
        return Repeat(_pruned(node.item, ending), node.low, node.high)
    return node


def _chars(ranges: list[tuple[int, int]], *, negated: bool = False) -> Chars:
    """Returns the set of these ranges, or of all other characters; surrogates are not characters."""
    taken = sorted([*ranges, (0xD800, 0xDFFF)]) if negated else sorted(ranges)
    merged: list[tuple[int, int]] = []
    for low, high in taken:
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    if negated:
        edges = [-1, *(edge for pair in merged for edge in pair), _LAST + 1]
        merged = [(a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if a + 1 <= b - 1]
    return Chars(tuple(merged))


class _Reader:
    """Parses a text by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._space(lines=True)
        while self._at < len(self._text):
            start = self._at
            name = self._name()
            if name in rules:
                self._fail(f"rule {name!r} is defined twice", start)
            self._space()
            self._expect("::=")
            self._space(lines=True)
            rules[name] = self._either(nested=False)
            if self._at < len(self._text) and self._peek() not in "\r\n":
                self._fail("a rule ends with its line")
            self._space(lines=True)
        return rules

    def _either(self, *, nested: bool) -> Node:
        items = [self._sequence(nested=nested)]
        while self._bar(nested):
            self._space(lines=True)
            items.append(self._sequence(nested=nested))
        return items[0] if len(items) == 1 else Either(tuple(items))

    def _bar(self, nested: bool) -> bool:
        """Consumes the bar before another alternative; True if there is one.

        Even at the top level the bar may be on the next line, because no rule begins with one.
        """
        start = self._at
        self._space(lines=True)
        if self._peek() == "|":
            self._at += 1
            return True
        if not nested:
            self._at = start
        return False

    def _sequence(self, *, nested: bool) -> Node:
        items: list[Node] = []
        while True:
            character = self._peek()
            if character == '"':
                items.append(self._literal())
            elif character == "[":
                items.append(self._class())
            elif character == "(":
                items.append(self._group())
            elif character == ".":
                self._at += 1
                items.append(_chars([], negated=True))
            elif _in_names(character):
                items.append(Rule(self._name()))
            elif character and character in "*+?{":
                if not items:
                    self._fail(f"{character!r} has nothing before it to repeat")
                items[-1] = self._repeat(items[-1])
            elif character and character in "<!":
                self._fail("tokens in a grammar are not supported; give their text")
            else:
                break
            self._space(lines=nested)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _literal(self) -> Node:
        start = self._at
        self._at += 1
        items: list[Node] = []
        while self._peek() != '"':
            if self._peek() in ("", "\n"):
                self._fail("a string is not closed", start)
            code = self._character()
            items.append(_chars([(code, code)]))
        self._at += 1
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _class(self) -> Node:
        start = self._at
        self._at += 1
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._peek() != "]":
            if self._peek() in ("", "\n"):
                self._fail("a character class is not closed", start)
            place = self._at
            low = high = self._character()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._character()
            if high < low:
                self._fail("a range of characters goes backwards", place)
            ranges.append((low, high))
        self._at += 1
        return _chars(ranges, negated=negated)

    def _group(self) -> Node:
        start = self._at
        self._at += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"groups are nested more than {_DEEPEST} deep", start)
        self._space(lines=True)
        node = self._either(nested=True)
        if self._peek() != ")":
            if self._at >= len(self._text):
                self._fail("a group is not closed", start)
            self._fail(f"{self._peek()!r} is not expected in a group")
        self._at += 1
        self._depth -= 1
        return node

    def _repeat(self, item: Node) -> Node:
        sign = self._peek()
        start = self._at
        self._at += 1
        if sign != "{":
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            return Repeat(item, low, high)
        first = self._number()
        last: int | None = first
        if self._peek() == ",":
            self._at += 1
            last = self._number()
        self._expect("}")
        if first is None and last is None:
            self._fail("a repetition needs a number", start)
        if last is not None and last < (first or 0):
            self._fail("a repetition's bounds are the wrong way round", start)
        if max(first or 0, last or 0) > _MOST_REPEATS:
            self._fail(f"a repetition goes over {_MOST_REPEATS}", start)
        return Repeat(item, first or 0, last)

    def _number(self) -> int | None:
        self._space()
        start = self._at
        while self._peek() and self._peek() in "0123456789":
            self._at += 1
        digits = self._text[start : self._at]
        self._space()
        # Twelve digits exceed every bound; converting more would only take time.
        return int(digits[:12]) if digits else None

    def _character(self) -> int:
        """Consumes a character, escaped or not, and returns its code point."""
        start = self._at
        character = self._peek()
        self._at += 1
        if character != "\\":
            return ord(character)
        sign = self._peek()
        self._at += 1
        if sign in _HEX:
            digits = self._text[self._at : self._at + _HEX[sign]]
            self._at += len(digits)
            if len(digits) < _HEX[sign] or set(digits) - set("0123456789abcdefABCDEF"):
                self._fail(f"\\{sign} needs {_HEX[sign]} hexadecimal digits", start)
            code = int(digits, 16)
            if code > _LAST or 0xD800 <= code <= 0xDFFF:
                self._fail(f"there is no character U+{code:04X}", start)
            return code
        if sign not in _ESCAPES:
            self._fail(f"\\{sign} is no escape", start)
        return ord(_ESCAPES[sign])

    def _name(self) -> str:
        start = self._at
        while _in_names(self._peek()):
            self._at += 1
        if self._at == start:
            self._fail("a rule's name is expected")
        return self._text[start : self._at]

    def _space(self, *, lines: bool = False) -> None:
        blank = " \t\r\n" if lines else " \t"
        while self._peek():
            if self._peek() == "#":
                while self._peek() not in ("", "\n"):
                    self._at += 1
            elif self._peek() in blank:
                self._at += 1
            else:
                return

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, sign: str) -> None:
        if not self._text.startswith(sign, self._at):
            self._fail(f"{sign!r} is expected")
        self._at += len(sign)

    def _fail(self, fault: str, at: int | None = None) -> None:
        place = self._at if at is None else at
        line = self._text.count("\n", 0, place) + 1
        column = place - (self._text.rfind("\n", 0, place) + 1) + 1
        raise ParameterError(f"Gbnf cannot be followed: line {line}, column {column}: {fault}")


def _in_names(character: str) -> bool:
    return character != "" and character.isascii() and (character.isalnum() or character in "-_")
