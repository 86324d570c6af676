"""Follows replies of chat models: no token is banned until a mark in the text begins a grammar.

A mark is the end of reasoning, or the text with which calls of tools begin. A token that completes a mark may
contain more text. It is banned if the grammar does not allow that text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from decodery.decoding.grammar.state import ANYTHING, DEAD, Masks, MatcherState, bit
from decodery.decoding.rows import GrammarState
from decodery.text.streaming.regions import Regions, ReplyMarks, begin

# The banned tokens of this many states are kept.
_MOST_KEPT = 1000


class TokenIndex:
    """Finds the tokens of a vocabulary by their bytes; `spellings` has those of each token."""

    def __init__(self, spellings: Sequence[bytes]) -> None:
        self.spellings = spellings
        self._order = sorted((data, token) for token, data in enumerate(spellings) if data)
        self._inside: dict[bytes, tuple[int, ...]] = {}

    def beginning_with(self, text: bytes) -> list[int]:
        """Returns the tokens whose bytes begin with this text."""
        place = bisect_left(self._order, (text, -1))
        found = []
        while place < len(self._order) and self._order[place][0].startswith(text):
            found.append(self._order[place][1])
            place += 1
        return found

    def containing(self, text: bytes) -> tuple[int, ...]:
        """Returns the tokens whose bytes contain this text."""
        known = self._inside.get(text)
        if known is None:
            known = self._inside[text] = tuple(token for data, token in self._order if text in data)
        return known


@dataclass(frozen=True, slots=True, eq=False)
class ReplyRules:
    """Holds what all states of one reply share.

    `marks` are in Latin-1: a character for each byte. The tokens `hidden` have no text. `calls` is the
    grammar of calls, which begins with their mark; with None, calls cannot begin. `begin_token` is the mark
    if it is a special token, which the library reads by its id. `content` is the grammar of all that follows
    reasoning, and `direct` the one of a reply without reasoning. After `budget` tokens of reasoning `closing`
    is forced, the tokens of the mark that ends it.
    """

    marks: ReplyMarks
    index: TokenIndex
    hidden: frozenset[int]
    calls: MatcherState | None = None
    begin_token: int | None = None
    content: MatcherState | None = None
    direct: MatcherState | None = None
    budget: int | None = None
    closing: tuple[int, ...] = ()
    banned: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Returns the number of the vocabulary's ids."""
        return len(self.index.spellings)

    def text_of(self, token: int) -> str:
        """Returns the text of a token, in Latin-1; "" for a hidden token."""
        return "" if token in self.hidden else self.index.spellings[token].decode("latin-1")

    def start(self) -> GrammarState:
        """Returns the state before the first token of a reply."""
        state = ReplyState(self, begin(self.marks)).closed_if_due()
        if self.direct is None or self.marks.reasoning is None or state.regions.in_reasoning:
            return state.simplified()
        mark = self.marks.reasoning[0].encode("latin-1")
        tokens = [
            token
            for token in self.index.beginning_with(mark)
            if self.text_of(token).encode("latin-1") == mark
        ]
        # A mark that takes several tokens could not be told from the grammar's own text.
        return OpeningState(self, tokens[0]) if tokens else self.direct

    def in_calls(self, text: str) -> GrammarState:
        """Returns the state after the text with which calls begin, and what follows it."""
        if self.calls is None:
            return DEAD
        mark = next((mark for mark in self.marks.calls if text.startswith(mark)), "")
        state: GrammarState | None = self.calls
        if self.begin_token is not None and mark == self.marks.calls[0]:
            state, text = self.calls.after(self.begin_token), text[len(mark) :]
        state = state.after_text(text.encode("latin-1")) if isinstance(state, MatcherState) else None
        return state or DEAD


@dataclass(frozen=True, slots=True, eq=False)
class ReplyState:
    """Holds the state of a reply before a grammar begins.

    `thought` counts the tokens of reasoning, `closing` are the tokens that are forced.
    """

    rules: ReplyRules
    regions: Regions
    thought: int = 0
    forced: tuple[int, ...] = ()
    complete: bool = False

    @property
    def size(self) -> int:
        """Returns the number of the vocabulary's ids."""
        return self.rules.size

    @property
    def accepting(self) -> bool:
        """True if the text may end here: no grammar has to follow."""
        return self.rules.content is None and not self.forced

    @property
    def unrestricted(self) -> bool:
        """True if every token may come next."""
        return self.accepting and not self._banned()

    def after(self, token: int) -> GrammarState:
        """Returns the state after one more token."""
        if self.forced and token != self.forced[0]:
            return DEAD
        if not 0 <= token < self.size:
            return DEAD
        rules, before = self.rules, self.regions
        regions = before.read(rules.text_of(token))
        if regions.in_calls:
            return rules.in_calls("".join(text for kind, text in regions.pieces if kind == "calls"))
        if rules.content is not None and before.in_reasoning and not regions.in_reasoning:
            return rules.content.after_text(_after_reasoning(rules.marks, before, regions)) or DEAD
        thought = self.thought + 1 if before.in_reasoning else 0
        state = ReplyState(rules, regions.emptied(), thought, self.forced[1:])
        return state.closed_if_due().simplified()

    def closed_if_due(self) -> ReplyState:
        """Returns this state, with the end of reasoning forced if the budget is spent."""
        budget = self.rules.budget
        if budget is None or self.forced or not self.regions.in_reasoning or self.thought < budget:
            return self
        return replace(self, forced=self.rules.closing)

    def simplified(self) -> GrammarState:
        """Returns `ANYTHING` if no grammar can begin any more, else this state."""
        marks, phase = self.rules.marks, self.regions.phase
        if phase == "content" and (marks.anchored or not marks.calls):
            return ANYTHING
        plain = self.rules.content is None and self.rules.budget is None and not marks.calls
        return ANYTHING if plain else self

    def allowed(self) -> Masks:
        """Returns the mask `[words]` of the tokens that may come next."""
        words: Masks = np.zeros(self.size // 32 + 1, np.int32)
        if self.forced:
            words[self.forced[0] // 32] = bit(self.forced[0])
            return words
        words[:] = -1
        for token in range(self.size, 32 * len(words)):
            words[token // 32] &= ~bit(token)
        for token in self._banned():
            words[token // 32] &= ~bit(token)
        return words

    def permits(self, token: int) -> bool:
        """True if this token may come next."""
        if self.forced:
            return token == self.forced[0]
        return 0 <= token < self.size and token not in self._banned()

    def _banned(self) -> frozenset[int]:
        """Returns the tokens that complete a mark and go on with text that its grammar does not allow."""
        key = self.regions.phase, self.regions.held
        known = self.rules.banned.get(key)
        if known is None:
            known = frozenset(token for token in self._completing() if self.after(token) is DEAD)
            if len(self.rules.banned) >= _MOST_KEPT:
                self.rules.banned.clear()
            self.rules.banned[key] = known
        return known

    def _completing(self) -> set[int]:
        """Returns at least all tokens that complete a mark which begins a grammar."""
        rules, held = self.rules, self.regions.held
        marks: tuple[str, ...] = rules.marks.calls
        if self.regions.in_reasoning or self.regions.phase == "open":
            reasoning = rules.marks.reasoning
            marks = (*marks, reasoning[1]) if reasoning is not None else marks
        found: set[int] = set()
        for mark in (mark.encode("latin-1") for mark in marks):
            found.update(rules.index.containing(mark))
            for length in range(1, len(mark)):
                if held.encode("latin-1").endswith(mark[:length]):
                    found.update(rules.index.beginning_with(mark[length:]))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class OpeningState:
    """Holds the state before a text that follows a grammar, or begins with reasoning: with its `mark`."""

    rules: ReplyRules
    mark: int
    forced: tuple[int, ...] = ()
    complete: bool = False
    unrestricted: bool = False

    @property
    def size(self) -> int:
        """Returns the number of the vocabulary's ids."""
        return self.rules.size

    @property
    def accepting(self) -> bool:
        """True if the text may end here."""
        return self._content.accepting

    @property
    def _content(self) -> MatcherState:
        assert self.rules.direct is not None
        return self.rules.direct

    def after(self, token: int) -> GrammarState:
        """Returns the state after one more token."""
        if token != self.mark:
            return self._content.after(token)
        opened = begin(self.rules.marks).read(self.rules.text_of(token))
        return ReplyState(self.rules, opened.emptied()).closed_if_due()

    def allowed(self) -> Masks:
        """Returns the mask `[words]` of the tokens that may come next."""
        words = self._content.allowed().copy()
        words[self.mark // 32] |= bit(self.mark)
        return words

    def permits(self, token: int) -> bool:
        """True if this token may come next."""
        return token == self.mark or self._content.permits(token)


def _after_reasoning(marks: ReplyMarks, before: Regions, after: Regions) -> bytes:
    """Returns the text after the mark that ends reasoning, which came between the two states."""
    assert marks.reasoning is not None
    text = "".join(piece for _, piece in after.pieces) + after.held
    end = text.index(marks.reasoning[1]) + len(marks.reasoning[1])
    return text[end:].encode("latin-1")
