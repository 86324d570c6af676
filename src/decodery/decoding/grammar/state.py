"""Holding texts to grammars, over the llguidance library: states, and the mask of the tokens they allow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.grammar.llguidance_source import LIMITS, after_text, refusal, source_of
from decodery.decoding.request.grammar_params import Grammar
from decodery.decoding.rows import GrammarState, Row
from decodery.errors import ParameterError
from decodery.kernels.vocabulary.dispatch import copied, copy_rows, keep_marked

# A longer forced text is told in parts.
_MOST_FORCED = 256
# So many masks take less time than to wake other threads for them.
_SOONER_ALONE = 8

Words = NDArray[np.int32]


class Grammars:
    """Compiles the grammars over one vocabulary, as `decodery.text.tokenizer.grammar_vocab` makes it.

    Those compiled last are kept.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._size = tokenizer.vocab_size - 1
        # Not all cores: torch's threads spin on them while they wait, and the masks would wait for them.
        self._executor = LLExecutor(max((os.cpu_count() or 2) // 2, 1))
        # Servers see the same few grammars again and again.
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def compile(self, grammar: Grammar) -> GrammarState:
        """The state in which a text begins that must match the grammar.

        ParameterError, naming the grammar's class and where the fault is, when it cannot be read, asks for
        what is not supported, or is one that no text of this vocabulary matches.
        """
        return self._compiled(grammar, "")

    def heal(self, prompt: Sequence[int], grammar: Grammar | None) -> Healed:
        """Take a prompt's last token back, so that the text begins with its characters instead.

        A prompt often ends within a word as the model would write it; the token that spells the rest of the
        prompt and goes on is then out of reach ("token healing", of the guidance library). Nothing is taken
        back when that token is special, is not whole characters, or is the prompt's only one.
        """
        text = self._healable(prompt)
        if not text:
            return Healed(list(prompt), None if grammar is None else self.compile(grammar), 0)
        place = self._compiled(grammar, text)
        state = _Rest(place, text.encode()) if grammar is None else place
        return Healed(list(prompt[:-1]), state, len(text))

    def _healable(self, prompt: Sequence[int]) -> str:
        """The text of a prompt's last token, if it is text and not all of the prompt."""
        if len(prompt) < 2 or prompt[-1] >= self._size or self._tokenizer.is_special_token(prompt[-1]):
            return ""
        try:
            text = self._tokenizer.decode_bytes([prompt[-1]]).decode()
        except UnicodeDecodeError:
            return ""
        # So the library spells an id without a token.
        return "" if text == f"<[{prompt[-1]}]>" else text

    def _compile(self, grammar: Grammar | None, prefix: str) -> _Place:
        name = "token_healing" if grammar is None else type(grammar).__name__
        try:
            source = None if grammar is None else source_of(grammar)
            form = source if source is not None and not prefix else after_text(prefix, source)
            matcher = LLMatcher(self._tokenizer, form, log_level=0, limits=LIMITS)
        except ParameterError:
            raise
        except ValueError as error:
            raise refusal(name, str(error)) from None
        if matcher.is_error():
            raise refusal(name, matcher.get_error())
        origin = _Origin(matcher, self._tokenizer, self._executor, self._size)
        start = _Place(origin, _Line(matcher.deep_copy(), [], shared=True))
        if not start.allowed().any():
            only = "only the empty text" if start.accepting else "no text that this vocabulary can spell"
            raise ParameterError(f"{name} matches {only}: nothing can be generated")
        return start


@dataclass(frozen=True, slots=True)
class Healed:
    """A prompt without its last token, and the state that makes the text begin with that token's text.

    `cut` is how many characters of the text repeat the prompt's end; 0 when nothing was taken back, and then
    `state` is the grammar's own, None without one.
    """

    prompt: list[int]
    state: GrammarState | None
    cut: int


@dataclass(frozen=True, slots=True)
class _Origin:
    """What all states of one compiled grammar share. `size` counts the vocabulary's ids; one more, the last
    of the mask, is the end of the text."""

    matcher: LLMatcher
    tokenizer: LLTokenizer
    executor: LLExecutor
    size: int


class _Line:
    """A matcher and the tokens it has consumed; places of one history share it, and the newest moves it on.

    A `shared` line is never moved on: it is where all texts of a grammar begin. One that is still `moving`
    after an interrupt may have a matcher that is ahead of the tokens.
    """

    __slots__ = ("matcher", "moving", "shared", "tokens")

    def __init__(self, matcher: LLMatcher, tokens: list[int], *, shared: bool = False) -> None:
        self.matcher = matcher
        self.tokens = tokens
        self.shared = shared
        self.moving = False

    def move(self, token: int) -> bool:
        """Go on by a token, if it is allowed."""
        self.moving = True
        allowed: bool = self.matcher.try_consume_tokens([token]) == 1
        if allowed:
            self.tokens.append(token)
        self.moving = False
        return allowed

    def fork(self, length: int, origin: _Origin) -> _Line:
        """A line of its own with the first `length` tokens."""
        matcher = self.matcher.deep_copy()
        if length < len(self.tokens):
            matcher.rollback(len(self.tokens) - length)
        tokens = self.tokens[:length]
        # A matcher that failed stays so, and some grammars cannot be rolled back.
        if self.moving or matcher.is_error():
            matcher = origin.matcher.deep_copy()
            matcher.consume_tokens(tokens)
        return _Line(matcher, tokens)


class _Place:
    """Where a text stands in a compiled grammar; a value, though places of one history share a matcher."""

    __slots__ = ("_at", "_forced", "_line", "_next", "_stopped", "accepting", "known", "origin")

    def __init__(self, origin: _Origin, line: _Line, forced: tuple[int, ...] = ()) -> None:
        self.origin = origin
        self.known: Words | None = None
        self.accepting = line.matcher.is_accepting()
        self._stopped = line.matcher.is_stopped()
        self._line = line
        self._at = len(line.tokens)
        self._forced = forced or None
        self._next: tuple[int, _Place] | None = None

    @property
    def complete(self) -> bool:
        """Whether the text matches and no token continues it."""
        return self.accepting and (self._stopped or not self.allowed().any())

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next, up to a bound; what follows them is told after them."""
        if self._forced is None:
            matcher = self.matcher()
            tokens = matcher.compute_ff_tokens()[:_MOST_FORCED]
            self._forced = tuple(tokens[: matcher.validate_tokens(tokens)]) if tokens else ()
        return self._forced

    def after(self, token: int) -> GrammarState:
        """The state after one more token; one that is not allowed ends a text that may end, and else leads to
        a state that allows none."""
        if self._next is not None and self._next[0] == token:
            return self._next[1]
        forced = self.forced
        if forced and token != forced[0]:
            return DEAD
        return self._consumed(token, forced[1:]) or (ENDED if self.accepting else DEAD)

    def _consumed(self, token: int, forced: tuple[int, ...]) -> _Place | None:
        """The place after a token, behind which these must come; None where it is not allowed."""
        self.matcher()
        line = self._line.fork(self._at, self.origin) if self._line.shared else self._line
        return _Place(self.origin, line, forced) if line.move(token) else None

    def allowed(self) -> Words:
        """The tokens that may come next, a bit each; the end of the text is not among them."""
        if self.known is None:
            self.known = _allowed([self])[0]
        return self.known

    def permits(self, token: int) -> bool:
        """Whether this token may come next."""
        forced = self.forced
        if forced:
            return token == forced[0]
        if token >= self.origin.size:
            return False
        if self._line.shared:
            return self.matcher().validate_tokens([token]) == 1
        # Who asks goes on by this token if it may: the library reads it once for both.
        after = self._consumed(token, ())
        if after is None:
            return False
        self._next = token, after
        return True

    def matcher(self) -> LLMatcher:
        """The matcher, brought to this place."""
        line = self._line
        if len(line.tokens) != self._at or line.moving or line.matcher.is_error():
            self._line = line.fork(self._at, self.origin)
        return self._line.matcher

    def spelling(self, token: int) -> bytes:
        """The bytes of a token."""
        return self.origin.tokenizer.decode_bytes([token])


@dataclass(frozen=True, slots=True)
class _Constant:
    """A state that no token changes."""

    accepting: bool
    complete: bool
    forced: tuple[int, ...] = ()

    def after(self, token: int) -> GrammarState:
        """The same."""
        return self


ANYTHING = _Constant(accepting=True, complete=False)
ENDED = _Constant(accepting=True, complete=True)
DEAD = _Constant(accepting=False, complete=False)


@dataclass(frozen=True, slots=True)
class _Rest:
    """Where a text must begin with `rest`, after which anything goes; `place` is where it stands."""

    place: _Place
    rest: bytes
    accepting: bool = False
    complete: bool = False

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next, up to a bound."""
        return self.place.forced

    def after(self, token: int) -> GrammarState:
        """The state after one more token."""
        place = self.place.after(token)
        if not isinstance(place, _Place):
            return place
        rest = self.rest[len(place.spelling(token)) :]
        return _Rest(place, rest) if rest else ANYTHING


def permits(row: Row, token: int) -> bool:
    """Whether the row's grammar allows a token next, as `apply_grammar` has it: far cheaper than to find all
    that it allows."""
    state = row.grammar
    if state is None or state is ANYTHING or (state.accepting and token in row.end_ids):
        return True
    place = state.place if isinstance(state, _Rest) else state
    return isinstance(place, _Place) and place.permits(token)


def apply_grammar(logits: Tensor, rows: Sequence[Row]) -> None:
    """Ban, in the logits of rows with a grammar, every token that it does not allow.

    Where the text may end, all of the row's end tokens are allowed. Finds the tokens of all rows at once.
    """
    places = [i for i, row in enumerate(rows) if row.grammar is not None and row.grammar is not ANYTHING]
    if not places:
        return
    words = marks([rows[i] for i in places], logits.shape[1])
    if len(places) == len(rows):
        keep_marked(logits, words)
        return
    part = copied(logits, places)
    keep_marked(part, words)
    copy_rows(part, range(len(places)), logits, places)


def marks(rows: Sequence[Row], vocab: int) -> Words:
    """What the rows' grammars allow next, as `apply_grammar` has it, a bit each: `[rows, words]`; of none may
    the state be `ANYTHING`."""
    states = [row.grammar for row in rows if row.grammar is not None]
    words = _allowed(states, vocab)
    for word, state, row in zip(words, states, rows, strict=True):
        if state.accepting:
            for token in row.end_ids:
                word[token // 32] |= _bit(token)
    return words


def _allowed(states: Sequence[GrammarState], vocab: int = 0) -> Words:
    """The tokens that may come next in each state, a bit each: `[states, words]`, padded with zeros to at
    least `vocab` bits."""
    places = [state.place if isinstance(state, _Rest) else state for state in states]
    origins = [place.origin for place in places if isinstance(place, _Place)]
    if not origins:
        return np.zeros((len(states), vocab // 32 + 1), np.int32)
    size = origins[0].size
    words: Words = np.zeros((len(states), size // 32 + 1), np.int32)
    asked: list[tuple[LLMatcher, int]] = []
    first: dict[int, int] = {}
    for i, place in enumerate(places):
        if not isinstance(place, _Place):
            continue
        if place.known is not None:
            words[i] = place.known
        elif place.forced:
            words[i, place.forced[0] // 32] = _bit(place.forced[0])
        elif id(place) in first:
            pass
        else:
            first[id(place)] = i
            asked.append((place.matcher(), i))
    address, width = words.ctypes.data, words.shape[1] * 4
    if len(asked) <= _SOONER_ALONE:
        for matcher, i in asked:
            matcher.unsafe_compute_mask_ptr(address + i * width, width)
    else:
        origins[0].executor.unsafe_compute_mask_ptr(asked, address, width, len(words))
    for i, place in enumerate(places):
        source = first.get(id(place), i)
        if source != i:
            words[i] = words[source]
    words[:, size // 32] &= ~_bit(size)
    missing = vocab // 32 + 1 - words.shape[1]
    return np.pad(words, ((0, 0), (0, missing))) if missing > 0 else words


@lru_cache(maxsize=4096)
def _bit(place: int) -> np.int32:
    """A word with the bit of this place alone."""
    bit: np.int32 = np.left_shift(1, place % 32, dtype=np.int32)
    return bit
