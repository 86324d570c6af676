"""Proves that reading terminals as long as possible (longest match) loses no text of a grammar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from decodery.decoding.grammar.gbnf_parser import (
    Chars,
    Either,
    Node,
    Repeat,
    Rule,
    Sequence,
    children,
    rules_used,
)

# Above these bounds the proof would take longer than it saves.
_MOST_POSITIONS = 1000
_MOST_STEPS = 300_000


class _TooLargeError(Exception):
    """Says that the grammar is too large for the proof."""


def longest_match_is_harmless(rules: Mapping[str, Node], terminals: Mapping[str, Node]) -> bool:
    """True if every text of the grammar can be read with terminals as long as possible.

    `rules` are made of rules and terminals only, and start with the rule `root`; terminals may be made of
    other terminals. The proof shows more than needed: no terminal that has matched can be continued, by
    itself or by another that began at the same place, with a character that may come after it. False also if
    the proof would take long.
    """
    used = {name for node in rules.values() for name in rules_used(node) if name in terminals}
    try:
        automaton = _Automaton(terminals)
        ends = {name: automaton.read(terminals[name]) for name in sorted(used)}
        after = _characters_after(
            rules, {name: _Start(e.empty, automaton.chars(e.first)) for name, e in ends.items()}
        )
        continued = automaton.continued(ends)
    except _TooLargeError:
        return False
    return all(not continued[name] & after[name] for name in used)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Holds the positions at which a node's texts begin and end, and whether the empty text is one."""

    empty: bool
    first: frozenset[int]
    last: frozenset[int]


_EMPTY = _Ends(True, frozenset(), frozenset())


class _Automaton:
    """Builds the position automaton of terminals (Glushkov 1961).

    It has a state for every character set in the terminals, with repeats written out. Sets of characters are
    bits of an integer, one for each class of characters that no terminal distinguishes.
    """

    def __init__(self, terminals: Mapping[str, Node]) -> None:
        self._terminals = terminals
        self._classes: dict[Chars, int] = _classes(terminals.values())
        self._at: list[int] = []
        self._follow: list[set[int]] = []

    def read(self, node: Node) -> _Ends:
        """Adds the positions of a node and returns its ends."""
        if isinstance(node, Rule):
            return self.read(self._terminals[node.name])
        if isinstance(node, Chars):
            if len(self._at) >= _MOST_POSITIONS:
                raise _TooLargeError
            self._at.append(self._classes[node])
            self._follow.append(set())
            here = frozenset((len(self._at) - 1,))
            return _Ends(False, here, here)
        if isinstance(node, Sequence):
            return reduce(self._joined, map(self.read, node.items), _EMPTY)
        if isinstance(node, Either):
            ends = [self.read(item) for item in node.items]
            return _Ends(
                any(e.empty for e in ends),
                frozenset().union(*(e.first for e in ends)),
                frozenset().union(*(e.last for e in ends)),
            )
        return self._repeated(node)

    def chars(self, positions: Iterable[int]) -> int:
        """Returns the characters at any of these positions."""
        return reduce(or_, (self._at[p] for p in positions), 0)

    def continued(self, ends: Mapping[str, _Ends]) -> dict[str, int]:
        """Returns, for each terminal, the characters that may continue it after it has matched.

        They continue the terminal itself, or another that began at the same place.
        """
        starts = frozenset().union(*(e.first for e in ends.values()))
        return {name: self._continued(e, starts) for name, e in ends.items()}

    def _continued(self, ends: _Ends, starts: frozenset[int]) -> int:
        pairs = {(p, q) for p in ends.first for q in starts if self._at[p] & self._at[q]}
        waiting = list(pairs)
        found = 0
        steps = 0
        while waiting:
            p, q = waiting.pop()
            if p in ends.last:
                found |= self.chars(self._follow[q])
            steps += len(self._follow[p]) * len(self._follow[q])
            if steps > _MOST_STEPS:
                raise _TooLargeError
            for pair in ((a, b) for a in self._follow[p] for b in self._follow[q]):
                if pair not in pairs and self._at[pair[0]] & self._at[pair[1]]:
                    pairs.add(pair)
                    waiting.append(pair)
        return found

    def _joined(self, left: _Ends, right: _Ends) -> _Ends:
        for p in left.last:
            self._follow[p] |= right.first
        return _Ends(
            left.empty and right.empty,
            left.first | right.first if left.empty else left.first,
            left.last | right.last if right.empty else right.last,
        )

    def _repeated(self, node: Repeat) -> _Ends:
        """Adds the required items, and then a loop or the optional items."""
        ends = _EMPTY
        for _ in range(node.low):
            ends = self._joined(ends, self.read(node.item))
        if node.high is None:
            more = self.read(node.item)
            for p in more.last:
                self._follow[p] |= more.first
            return self._joined(ends, _Ends(True, more.first, more.last))
        for _ in range(node.high - node.low):
            more = self.read(node.item)
            ends = self._joined(ends, _Ends(True, more.first, more.last))
        return ends


def _classes(nodes: Iterable[Node]) -> dict[Chars, int]:
    """Returns every character set in these nodes, as bits."""
    sets: set[Chars] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        waiting += children(node)
        if isinstance(node, Chars):
            sets.add(node)
    edges = sorted({edge for s in sets for low, high in s.ranges for edge in (low, high + 1)})
    bit = {edge: 1 << i for i, edge in enumerate(edges)}
    # The difference of two edges' bits is the bits of all classes between the edges.
    return {s: sum(bit[high + 1] - bit[low] for low, high in s.ranges) for s in sets}


@dataclass(frozen=True, slots=True)
class _Start:
    """Says whether a node matches the empty text, and with which characters its other texts begin."""

    empty: bool
    chars: int


@dataclass(slots=True)
class _After:
    """Collects the characters that may come after each rule and terminal."""

    starts: Mapping[str, _Start]
    after: dict[str, int] = field(default_factory=dict)

    def spread(self, node: Node, after: int) -> None:
        """Records what may come after every node in a node, given what may come after that."""
        if isinstance(node, Rule):
            self.after[node.name] = self.after.get(node.name, 0) | after
        elif isinstance(node, Either):
            for item in node.items:
                self.spread(item, after)
        elif isinstance(node, Repeat):
            again = node.high is None or node.high > 1
            self.spread(node.item, after | (_start(node.item, self.starts).chars if again else 0))
        elif isinstance(node, Sequence):
            for item in reversed(node.items):
                self.spread(item, after)
                start = _start(item, self.starts)
                after = start.chars | (after if start.empty else 0)


def _characters_after(rules: Mapping[str, Node], terminals: Mapping[str, _Start]) -> dict[str, int]:
    """Returns the characters that may come after each terminal (the FOLLOW sets of parsing)."""
    starts = {**terminals, **dict.fromkeys(rules, _Start(False, 0))}
    while True:
        more = {name: _start(node, starts) for name, node in rules.items()}
        if all(starts[name] == start for name, start in more.items()):
            break
        starts |= more
    found = _After(starts)
    while True:
        before = dict(found.after)
        for name, node in rules.items():
            found.spread(node, found.after.get(name, 0))
        if found.after == before:
            return {name: found.after.get(name, 0) for name in terminals}


def _start(node: Node, starts: Mapping[str, _Start]) -> _Start:
    if isinstance(node, Rule):
        return starts[node.name]
    if isinstance(node, Repeat):
        start = _start(node.item, starts)
        return _Start(start.empty or node.low == 0, start.chars)
    each = [_start(item, starts) for item in children(node)]
    if isinstance(node, Either):
        return _Start(any(s.empty for s in each), reduce(or_, (s.chars for s in each), 0))
    chars = 0
    for start in each:
        chars |= start.chars
        if not start.empty:
            return _Start(False, chars)
    return _Start(True, chars)
