"""Follows texts through compiled grammars, and masks the tokens that the grammars do not allow.

Built on the matchers of the llguidance library; `compiler` makes the initial states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.grammar.mask_threads import MaskThreads
from decodery.decoding.rows import GrammarState, Row
from decodery.kernels.vocabulary.dispatch import copied, copy_rows, keep_marked

# A longer forced text is returned in parts.
_MOST_FORCED = 256
# Computing this many masks takes less time than waking other threads for them.
_MOST_WITHOUT_THREADS = 8

# A mask has a bit for each token, in words of 32 bits.
Masks = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    """Holds what all states of one compiled grammar share.

    `matcher` has consumed no token and is only copied. `size` is the number of the vocabulary's ids; the
    library's masks have one more bit, the last, for the end of the text.
    """

    matcher: LLMatcher
    tokenizer: LLTokenizer
    threads: MaskThreads
    size: int


class MatchedSequence:
    """Holds a matcher and the sequence of tokens that it has consumed.

    The states along one sequence share it; the newest state makes it consume more. A `shared` sequence never
    consumes more: it is the empty one, with which all texts of a grammar begin. A sequence that is still
    `consuming` after an interrupt may have a matcher that is ahead of its tokens.
    """

    __slots__ = ("consuming", "matcher", "shared", "tokens")

    def __init__(self, matcher: LLMatcher, tokens: list[int], *, shared: bool = False) -> None:
        self.matcher = matcher
        self.tokens = tokens
        self.shared = shared
        self.consuming = False

    def consume(self, token: int) -> bool:
        """Consumes a token if the grammar allows it; True if it does."""
        self.consuming = True
        allowed: bool = self.matcher.try_consume_tokens([token]) == 1
        if allowed:
            self.tokens.append(token)
        self.consuming = False
        return allowed

    def fork(self, length: int, grammar: CompiledGrammar) -> MatchedSequence:
        """Returns an independent sequence of the first `length` tokens."""
        matcher = self.matcher.deep_copy()
        if length < len(self.tokens):
            matcher.rollback(len(self.tokens) - length)
        tokens = self.tokens[:length]
        # A matcher that failed stays so, and some grammars cannot be rolled back.
        if self.consuming or matcher.is_error():
            matcher = grammar.matcher.deep_copy()
            matcher.consume_tokens(tokens)
        return MatchedSequence(matcher, tokens)


class MatcherState:
    """Holds the state of a text in a compiled grammar, after the first tokens of a `MatchedSequence`.

    It is a value: what later states do with the shared sequence does not change it.
    """

    __slots__ = ("_forced", "_length", "_sequence", "_stopped", "_successor", "accepting", "grammar", "mask")

    def __init__(
        self, grammar: CompiledGrammar, sequence: MatchedSequence, forced: tuple[int, ...] = ()
    ) -> None:
        self.grammar = grammar
        self.mask: Masks | None = None
        self.accepting = sequence.matcher.is_accepting()
        self._stopped = sequence.matcher.is_stopped()
        self._sequence = sequence
        self._length = len(sequence.tokens)
        self._forced = forced or None
        self._successor: tuple[int, MatcherState] | None = None

    @property
    def unrestricted(self) -> bool:
        """False if any token is banned, as by every grammar."""
        return False

    @property
    def complete(self) -> bool:
        """True if the text matches and no token continues it."""
        return self.accepting and (self._stopped or not self.allowed().any())

    @property
    def forced(self) -> tuple[int, ...]:
        """Returns the tokens that must come next, up to a bound; the states after them return the rest."""
        if self._forced is None:
            matcher = self.matcher()
            tokens = matcher.compute_ff_tokens()[:_MOST_FORCED]
            self._forced = tuple(tokens[: matcher.validate_tokens(tokens)]) if tokens else ()
        return self._forced

    def after(self, token: int) -> GrammarState:
        """Returns the state after one more token.

        A token that is not allowed ends a text that may end (`ENDED`); otherwise it leads to a state that
        allows no token (`DEAD`).
        """
        if self._successor is not None and self._successor[0] == token:
            return self._successor[1]
        forced = self.forced
        if forced and token != forced[0]:
            return DEAD
        return self._consume(token, forced[1:]) or (ENDED if self.accepting else DEAD)

    def _consume(self, token: int, forced: tuple[int, ...]) -> MatcherState | None:
        """Returns the state after a token, with the tokens forced after it; None if it is not allowed."""
        self.matcher()
        sequence = self._sequence
        if sequence.shared:
            sequence = sequence.fork(self._length, self.grammar)
        return MatcherState(self.grammar, sequence, forced) if sequence.consume(token) else None

    def allowed(self) -> Masks:
        """Returns the mask `[words]` of the tokens that may come next, without the end of the text."""
        if self.mask is None:
            self.mask = _masks_of([self])[0]
        return self.mask

    def permits(self, token: int) -> bool:
        """True if this token may come next; the state after it is then cached."""
        forced = self.forced
        if forced:
            return token == forced[0]
        if token >= self.grammar.size:
            return False
        if self._sequence.shared:
            return self.matcher().validate_tokens([token]) == 1
        # The caller usually continues with this token: so the library consumes it only once.
        after = self._consume(token, ())
        if after is None:
            return False
        self._successor = token, after
        return True

    def after_text(self, text: bytes) -> MatcherState | None:
        """Returns the state after these bytes, or None if they are not allowed.

        The library reads bytes, so it does not matter by which tokens they are spelled.
        """
        tokens = self.grammar.tokenizer.tokenize_bytes(text) if text else []
        state: MatcherState | None = self if sum(len(self.spelling(t)) for t in tokens) == len(text) else None
        for token in tokens:
            state = None if state is None else state._consume(token, ())
        return state

    def matcher(self) -> LLMatcher:
        """Returns a matcher that has consumed exactly this state's tokens."""
        sequence = self._sequence
        if len(sequence.tokens) != self._length or sequence.consuming or sequence.matcher.is_error():
            self._sequence = sequence.fork(self._length, self.grammar)
        return self._sequence.matcher

    def spelling(self, token: int) -> bytes:
        """Returns the bytes of a token."""
        return self.grammar.tokenizer.decode_bytes([token])


@dataclass(frozen=True, slots=True)
class ConstantState:
    """Holds a state that no token changes."""

    accepting: bool
    complete: bool
    unrestricted: bool = False
    forced: tuple[int, ...] = ()

    def after(self, token: int) -> GrammarState:
        """Returns this state."""
        return self


ANYTHING = ConstantState(accepting=True, complete=False, unrestricted=True)
ENDED = ConstantState(accepting=True, complete=True)
DEAD = ConstantState(accepting=False, complete=False)


@dataclass(frozen=True, slots=True)
class PrefixState:
    """Holds the state of a text that must begin with `prefix`; after the prefix, anything is allowed.

    `state` is the text's state in the grammar of the whole prefix; `prefix` is the part still to come.
    """

    state: MatcherState
    prefix: bytes
    accepting: bool = False
    complete: bool = False
    unrestricted: bool = False

    @property
    def forced(self) -> tuple[int, ...]:
        """Returns the tokens that must come next, up to a bound."""
        return self.state.forced

    def after(self, token: int) -> GrammarState:
        """Returns the state after one more token."""
        state = self.state.after(token)
        if not isinstance(state, MatcherState):
            return state
        prefix = self.prefix[len(state.spelling(token)) :]
        return PrefixState(state, prefix) if prefix else ANYTHING


@runtime_checkable
class MaskedState(Protocol):
    """Declares a state that says itself which tokens may come next.

    `size` is the number of the vocabulary's ids. The end of the text may come only where the state accepts,
    also by a token that is otherwise text.
    """

    @property
    def size(self) -> int:
        """Returns the number of the vocabulary's ids."""

    def allowed(self) -> Masks:
        """Returns the mask `[words]` of the tokens that may come next."""

    def permits(self, token: int) -> bool:
        """True if this token may come next."""


def permits(row: Row, token: int) -> bool:
    """True if `apply_grammar` would allow the row this token.

    To find this for one token is far cheaper than to find all tokens that the grammar allows.
    """
    state = row.grammar
    if state is None or state.unrestricted or (state.accepting and token in row.end_ids):
        return True
    inner = state.state if isinstance(state, PrefixState) else state
    if isinstance(inner, MatcherState):
        return inner.permits(token)
    return isinstance(inner, MaskedState) and token not in row.end_ids and inner.permits(token)


def apply_grammar(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans, in the logits of rows with a grammar, every token that the grammar does not allow.

    Changes float32 logits `[rows, vocab]` in place. Where the text may end, all of the row's end tokens are
    allowed. The masks of all rows are computed together.
    """
    using = [i for i, row in enumerate(rows) if row.grammar is not None and not row.grammar.unrestricted]
    if not using:
        return
    words = marks([rows[i] for i in using], logits.shape[1])
    if len(using) == len(rows):
        keep_marked(logits, words)
        return
    part = copied(logits, using)
    keep_marked(part, words)
    copy_rows(part, range(len(using)), logits, using)


def marks(rows: Sequence[Row], vocab: int) -> Masks:
    """Returns the masks `[rows, words]` of the tokens that `apply_grammar` allows.

    Every row must have a grammar, whose state must not be unrestricted.
    """
    states = [row.grammar for row in rows if row.grammar is not None]
    words = _masks_of(states, vocab)
    for word, state, row in zip(words, states, rows, strict=True):
        if state.accepting:
            for token in row.end_ids:
                word[token // 32] |= bit(token)
        elif isinstance(state, MaskedState):
            for token in row.end_ids:
                word[token // 32] &= ~bit(token)
    return words


def _masks_of(states: Sequence[GrammarState], vocab: int = 0) -> Masks:
    """Returns the masks `[states, words]` of the tokens that may come next, without the end of the text.

    They are padded with zeros to at least `vocab` bits.
    """
    inner = [state.state if isinstance(state, PrefixState) else state for state in states]
    grammars = [state.grammar for state in inner if isinstance(state, MatcherState)]
    sizes = [grammar.size for grammar in grammars]
    sizes += [state.size for state in inner if isinstance(state, MaskedState)]
    if not sizes:
        return np.zeros((len(states), vocab // 32 + 1), np.int32)
    size = sizes[0]
    words: Masks = np.zeros((len(states), size // 32 + 1), np.int32)
    missing: list[tuple[LLMatcher, int]] = []
    first: dict[int, int] = {}
    for i, state in enumerate(inner):
        if not isinstance(state, MatcherState):
            if isinstance(state, MaskedState):
                words[i] = state.allowed()
        elif state.mask is not None:
            words[i] = state.mask
        elif state.forced:
            words[i, state.forced[0] // 32] = bit(state.forced[0])
        elif id(state) in first:
            pass
        else:
            first[id(state)] = i
            missing.append((state.matcher(), i))
    address, width = words.ctypes.data, words.shape[1] * 4
    if len(missing) <= _MOST_WITHOUT_THREADS:
        for matcher, i in missing:
            matcher.unsafe_compute_mask_ptr(address + i * width, width)
    else:
        grammars[0].threads.fill(missing, address, width, len(words))
    for i, state in enumerate(inner):
        source = first.get(id(state), i)
        if source != i:
            words[i] = words[source]
    words[:, size // 32] &= ~bit(size)
    padding = vocab // 32 + 1 - words.shape[1]
    return np.pad(words, ((0, 0), (0, padding))) if padding > 0 else words


@lru_cache(maxsize=4096)
def bit(token: int) -> np.int32:
    """Returns a word in which only this token's bit is set."""
    bit: np.int32 = np.left_shift(1, token % 32, dtype=np.int32)
    return bit
