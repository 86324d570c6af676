"""Checks grammars that a mark in a reply begins, against all texts of a small vocabulary."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from decodery.decoding.grammar.reply_state import ReplyRules, TokenIndex
from decodery.decoding.grammar.state import ANYTHING, MatcherState, permits
from decodery.decoding.request.grammar_params import Choice
from decodery.decoding.rows import GrammarState
from decodery.text.streaming.regions import Beginning, ReplyMarks, begin
from tests.decoding.grammar.token_sequences import END, GRAMMARS, SIZE, TOKENS, TURN, allowed
from tests.decoding.rows import make_row

INDEX = TokenIndex(TOKENS)
HIDDEN = frozenset({END, TURN})
# Many tokens of the vocabulary contain the last character of these marks and more.
MARKS = ('ab"', "a.")
CALLS = ('ab"name": 12', 'ab"}}', "a.*", "a.é")
OPEN, CLOSE = "aa", '",'
CONTENT = ("red", "redder", " the", '"}', "é")
# The token that ends reasoning and goes on with what is no content.
BAD = TOKENS.index(b'", "')
ALL = set(range(SIZE))
PIECES = [*(t for t in range(SIZE) if t not in HIDDEN and TOKENS[t])]


def compiled(texts: tuple[str, ...]) -> MatcherState:
    state = GRAMMARS.compile(Choice(texts))
    assert isinstance(state, MatcherState)
    return state


def rules(
    *,
    calls: bool = False,
    content: bool = False,
    anchored: bool = False,
    beginning: Beginning = "content",
    budget: int | None = None,
) -> ReplyRules:
    return ReplyRules(
        ReplyMarks(
            None if beginning == "content" else (OPEN, CLOSE), beginning, MARKS if calls else (), anchored
        ),
        INDEX,
        HIDDEN,
        calls=compiled(CALLS) if calls else None,
        content=compiled(CONTENT) if content else None,
        direct=compiled(CONTENT) if content and beginning != "reasoning" else None,
        budget=budget,
        closing=tuple(CLOSE.encode()),
    )


def text_of(tokens: list[int]) -> str:
    return b"".join(b"" if t in HIDDEN else TOKENS[t] for t in tokens).decode("latin-1")


def possible(options: tuple[str, ...], text: str) -> bool:
    """True if an option begins with this text."""
    return any(option.encode().decode("latin-1").startswith(text) for option in options)


def is_possible(own: ReplyRules, tokens: list[int]) -> bool:
    """True if a reply may begin with these tokens, found from its whole text."""
    text = text_of(tokens)
    state = begin(own.marks).read(text)
    if own.content is not None and not state.in_reasoning:
        return possible(CONTENT, text[text.index(CLOSE) + len(CLOSE) :])
    if state.in_calls:
        return possible(CALLS, "".join(piece for kind, piece in state.pieces if kind == "calls"))
    return True


def likely(source: random.Random, tokens: list[int], state: GrammarState) -> int:
    """Returns a token that often brings the text nearer to a mark or an option."""
    options = (*MARKS, *CALLS, CLOSE, OPEN, *CONTENT)
    wanted = source.choice(options).encode()
    text = text_of(tokens).encode("latin-1")
    for length in range(len(wanted) - 1, -1, -1):
        if text.endswith(wanted[:length]):
            rest = wanted[length:]
            found = [t for t in PIECES if rest.startswith(TOKENS[t])]
            if found and source.random() < 0.8:
                return source.choice(found)
    return source.choice(PIECES)


WAYS: dict[str, Callable[[], ReplyRules]] = {
    "calls": lambda: rules(calls=True),
    "anchored calls": lambda: rules(calls=True, anchored=True),
    "banned calls": lambda: replace(rules(calls=True), calls=None),
    "calls after reasoning": lambda: rules(calls=True, beginning="reasoning"),
    "calls, perhaps after reasoning": lambda: rules(calls=True, beginning="open"),
    "content after reasoning": lambda: rules(content=True, beginning="reasoning"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_banned_exactly_if_it_begins_what_the_grammar_cannot_continue(way: str) -> None:
    own = WAYS[way]()
    source = random.Random(way)
    banned = 0
    for _ in range(25):
        state, tokens = own.start(), list[int]()
        for _ in range(12):
            expected = {t for t in ALL if t not in HIDDEN and _follows(own, tokens, t)}
            found = allowed(state)
            if state.forced:
                assert found == {state.forced[0]} <= expected
            else:
                assert found - HIDDEN == expected, text_of(tokens)
            if own.calls is None and way == "banned calls":
                assert not begin(own.marks).read(text_of(tokens)).in_calls
            for token in source.sample(sorted(ALL), 20):
                assert permits(replace(make_row(), grammar=state), token) == (token in found)
            assert state.unrestricted == (found == ALL and state.accepting)
            banned += len(found) < SIZE
            token = likely(source, tokens, state)
            if token not in found:
                break
            state, tokens = state.after(token), [*tokens, token]
    assert banned


def _follows(own: ReplyRules, tokens: list[int], token: int) -> bool:
    if own.calls is None and own.content is None:
        return not begin(own.marks).read(text_of([*tokens, token])).in_calls
    in_grammar = begin(own.marks).read(text_of(tokens))
    begun = in_grammar.in_calls or (own.content is not None and not in_grammar.in_reasoning)
    # A grammar has no place for a token without text.
    return (bool(TOKENS[token]) or not begun) and is_possible(own, [*tokens, token])


def test_a_state_is_a_value_that_forks() -> None:
    own = rules(calls=True)
    state = own.start()
    for token in b"x ab":
        state = state.after(token)
    one, other = state.after(TOKENS.index(b'"name')), state.after(TOKENS.index(b'"}'))
    assert allowed(one) == {TOKENS.index(b'": ')}  # The only text that goes on, in its longest tokens.
    assert allowed(other) == {ord("}")}
    assert other.after(ord("}")).complete
    assert allowed(state.after(ord("x"))) == ALL


def test_only_the_end_of_the_text_is_banned_while_a_grammar_must_follow() -> None:
    must, may = rules(content=True, beginning="reasoning").start(), rules(calls=True).start()
    assert allowed(must, end_ids=(END, ord("z"))) == ALL - {END, ord("z"), BAD}
    assert allowed(may, end_ids=(END,)) == ALL
    row = replace(make_row(end_ids=(END,)), grammar=must)
    assert not permits(row, END)
    assert permits(row, TURN)


def test_without_marks_nothing_is_followed() -> None:
    assert rules().start() is ANYTHING
    state = rules(calls=True, anchored=True).start()
    assert state.after(ord("x")) is ANYTHING


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_the_closing_mark_is_forced_after_the_budget(budget: int) -> None:
    state = rules(beginning="reasoning", budget=budget).start()
    for _ in range(budget):
        assert not state.forced
        state = state.after(ord("x"))
    for token in CLOSE.encode():
        assert state.forced[0] == token
        assert allowed(state) == {token}
        state = state.after(token)
    assert not state.forced
    assert state.after(ord("y")) is ANYTHING


def test_reasoning_that_the_reply_opens_comes_before_a_required_grammar() -> None:
    state = rules(content=True, beginning="open").start()
    mark = TOKENS.index(OPEN.encode())
    first = {t for t in PIECES if any(o.encode().startswith(TOKENS[t]) for o in CONTENT)}
    assert allowed(state, end_ids=(END,)) == {*first, mark}
    assert allowed(state.after(mark), end_ids=(END,)) == ALL - {END, BAD}
    assert state.after(TOKENS.index(b"red")).complete is False
    assert not allowed(state.after(ord("z")))
