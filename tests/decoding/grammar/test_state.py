from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.grammar.state import ANYTHING, DEAD, ENDED, apply_grammar, permits
from decodery.decoding.processors.pipeline import PROCESSORS
from decodery.decoding.request.grammar_params import Choice, Grammar, JsonObject, Lark, Regex
from decodery.decoding.rows import GrammarState
from decodery.decoding.stopping import finish_of
from tests.decoding.grammar.token_sequences import (
    ARITHMETIC,
    END,
    EXAMPLES,
    GRAMMARS,
    HOLE,
    PIECES,
    SIZE,
    TOKENS,
    TURN,
    after,
    allowed,
    allowed_in,
    grammars_spelled,
    matches,
    random_text,
    spell,
    unspell,
)
from tests.decoding.rows import make_row


def random_regex(source: random.Random, depth: int = 0) -> str:
    kind = source.random()
    if depth > 2 or kind < 0.4:
        return source.choice(
            ["a", "b", "ab", "abc", "[ab]", "[^a]", "c", "[0-9]", ".", "é", r"\.", "the", "[é-ü]"]
        )
    parts = [random_regex(source, depth + 1) for _ in range(source.randint(2, 3))]
    if kind < 0.6:
        return "".join(parts)
    if kind < 0.8:
        return f"(?:{'|'.join(parts)})"
    return f"(?:{parts[0]}){source.choice(['*', '+', '?', '{2}', '{1,2}', '{0,3}', '{2,}'])}"


def tokens_of(*texts: str) -> set[int]:
    """Returns the tokens with these texts; some texts have two."""
    return {i for i, piece in enumerate(PIECES) if piece.decode("utf-8", "replace") in texts}


@pytest.mark.parametrize("seed", range(200))
def test_random_regexes_allow_what_matches_and_nothing_else(seed: int) -> None:
    source = random.Random(seed)
    pattern = random_regex(source)
    tokens, state = random_text(GRAMMARS.compile(Regex(pattern)), source, most=60)
    if state.accepting:
        assert re.fullmatch(pattern, unspell(tokens))
    for _ in range(4):
        text = "".join(source.choices(["a", "b", "c", "7", "é", "the", "."], k=source.randint(1, 5)))
        assert matches(Regex(pattern), text) == bool(re.fullmatch(pattern, text)), (pattern, text)


def test_a_choice_allows_its_options_and_nothing_else() -> None:
    options = (
        "a",
        "ab",
        "abc",
        "a.*b",
        "(x|y)[z]{2}",
        "\\d\\n",
        "two\nlines\r\n",
        "日本 é😀",
        "/slash/",
        '"q"',
        "<|end|>",
        " ",
    )
    for option in options:
        assert matches(Choice(options), option)
    for text in ("", "b", "abcd", "aXXb", "x", "7\n", "two", "日", "<|end|", "  "):
        assert not matches(Choice(options), text)
    found = {
        unspell(random_text(GRAMMARS.compile(Choice(options)), random.Random(i), ends=0.5)[0])
        for i in range(300)
    }
    assert found == set(options)


def test_a_lark_grammar_allows_its_texts_and_no_others() -> None:
    for text in ("1", "1+22", "(1+2)+3", "((7))"):
        assert matches(ARITHMETIC, text)
    for text in ("", "+", "1+", "(1", "1234"):
        assert not matches(ARITHMETIC, text)


@pytest.mark.parametrize("grammar", EXAMPLES, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("seed", range(4))
def test_a_state_depends_on_its_tokens_only_however_states_fork_and_roll_back(
    grammar: Grammar, seed: int
) -> None:
    source = random.Random(seed)
    start = GRAMMARS.compile(grammar)
    known: list[tuple[GrammarState, list[int]]] = [(start, [])]
    for _ in range(40):
        state, tokens = source.choice(known[-6:] if source.random() < 0.5 else known)
        choices = sorted(allowed(state))
        if choices:
            token = source.choice(choices)
            known.append((state.after(token), [*tokens, token]))
    fresh = GrammarCompiler(GRAMMARS._tokenizer)
    for state, tokens in source.sample(known, k=min(12, len(known))):
        again = after(fresh.compile(grammar), tokens)
        assert allowed(state) == allowed(again)
        assert (state.accepting, state.complete, state.forced) == (
            again.accepting,
            again.complete,
            again.forced,
        )


def test_a_state_is_not_changed_by_what_its_successors_do() -> None:
    start = GRAMMARS.compile(Regex("(a|b)+c"))
    one = start.after(ord("a"))
    before = allowed(one)
    random_text(one, random.Random(1), ends=0)
    assert one.after(ord("d")) is DEAD
    assert allowed(one) == before
    assert allowed(start) == allowed(GRAMMARS.compile(Regex("(a|b)+c")))


def test_a_state_asked_whether_it_permits_a_token_continues_with_any_token() -> None:
    source = random.Random(0)
    start = GRAMMARS.compile(JsonObject())
    state: GrammarState = start
    tokens: list[int] = []
    for _ in range(20):
        choices = sorted(allowed(state))
        asked, token = source.choice(choices), source.choice(choices)
        row = replace(make_row([1], tokens), grammar=state)
        assert permits(row, asked)
        assert not permits(row, next(t for t in range(SIZE) if t not in choices))
        state, tokens = state.after(token), [*tokens, token]
        again = after(GrammarCompiler(GRAMMARS._tokenizer).compile(JsonObject()), tokens)
        assert allowed(state) == allowed(again)


class Interrupted(list[int]):
    """Raises when a token is appended."""

    def append(self, token: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("ask", [False, True], ids=["after", "permits"])
def test_an_interrupted_step_does_not_change_its_state(ask: bool) -> None:
    start = GRAMMARS.compile(Regex("x[a-z]12[0-9]"))
    state: Any = start.after(ord("x"))
    before = allowed(after(start, [ord("x")]))
    state._sequence.tokens = Interrupted(state._sequence.tokens)
    with pytest.raises(KeyboardInterrupt):
        permits(replace(make_row(), grammar=state), ord("b")) if ask else state.after(ord("b"))
    assert allowed(state) == before
    assert allowed(state.after(ord("c"))) == allowed(after(start, [ord("x"), ord("c")]))


def test_a_grammar_that_cannot_be_rolled_back_forks_correctly() -> None:
    start = GRAMMARS.compile(Lark('start: word "!"\nword[max_tokens=3]: /[a-z]+/'))
    two = after(start, [ord("x"), ord("y")])
    ends = [after(two, [ord(c), ord("!")]) for c in "abc"]
    assert all(end.complete for end in ends)
    assert allowed(two) == allowed(after(start, [ord("x"), ord("y")]))


@pytest.mark.parametrize("grammar", EXAMPLES, ids=lambda g: type(g).__name__)
def test_the_masks_of_all_rows_at_once_are_those_of_each_alone(grammar: Grammar) -> None:
    source = random.Random(3)
    states: list[GrammarState | None] = [
        GRAMMARS.compile(grammar),
        GRAMMARS.compile(EXAMPLES[0]),
        None,
        ANYTHING,
        ENDED,
        DEAD,
    ]
    for steps in (1, 3, 8):
        states.append(random_text(GRAMMARS.compile(grammar), source, most=steps, ends=0)[1])
    # The same state several times, and two states of one sequence.
    older = random_text(GRAMMARS.compile(EXAMPLES[0]), source, most=4)[1]
    states += [older, older, older.after(min(allowed(older))), older]
    alone = [allowed_in([state], end_ids=[END])[0] for state in states]
    assert allowed_in(states, end_ids=[END]) == alone
    assert alone[2] == alone[3] == set(range(SIZE))
    assert alone[4] == {END}
    assert alone[5] == set()


def test_logits_of_allowed_tokens_stay_bit_for_bit() -> None:
    logits = torch.randn(2, SIZE, generator=torch.Generator().manual_seed(0))
    logits[0, 5], logits[0, 48], logits[1, 7] = -torch.inf, torch.inf, torch.inf
    before = logits.clone()
    apply_grammar(logits, [replace(make_row(), grammar=GRAMMARS.compile(Regex("[0-9]+"))), make_row()])
    digits = sorted(allowed(GRAMMARS.compile(Regex("[0-9]+"))))
    assert torch.equal(logits[0, digits], before[0, digits])
    assert torch.equal(logits[1], before[1])
    assert (logits[0] > -torch.inf).sum() <= len(digits)
    assert PROCESSORS["grammar"].apply is apply_grammar


@pytest.mark.parametrize("grammar", EXAMPLES, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_a_forced_token_is_the_only_one_allowed_and_forced_text_does_not_change(
    grammar: Grammar, seed: int
) -> None:
    source = random.Random(seed)
    states = [GRAMMARS.compile(grammar)]
    for _ in range(60):
        choices = sorted(allowed(states[-1]))
        if not choices:
            break
        states.append(states[-1].after(source.choice(choices)))
    for state, following in pairwise(states):
        if state.forced:
            assert allowed(state, end_ids=[END]) == {state.forced[0]}
            assert following.forced[: len(state.forced) - 1] == state.forced[1:]
            assert not state.accepting
            assert END not in state.forced


def test_a_long_forced_text_is_forced_in_full() -> None:
    text = "the name of the value is " * 40
    state = GRAMMARS.compile(Regex(f"{text}(a|b)"))
    tokens: list[int] = []
    while state.forced:
        tokens.append(state.forced[0])
        state = state.after(tokens[-1])
    assert unspell(tokens) in (text, text.rstrip(" "))
    assert len(tokens) < len(text) // 2


def test_forced_text_is_the_same_from_every_state_along_it() -> None:
    def spelling(text: str) -> list[int]:
        return spell(text) if text.startswith("the") else list(text.encode())

    state = grammars_spelled(spelling).compile(Regex("the name red value(a|b)"))
    at_once = state.forced
    for i, token in enumerate(at_once):
        assert state.forced == at_once[i:]
        state = state.after(token)
    assert spell("name")[0] in at_once


def test_nothing_is_forced_where_the_text_may_end() -> None:
    state = GRAMMARS.compile(Regex("a(bc)?")).after(ord("a"))
    assert state.accepting
    assert state.forced == ()
    assert allowed(state, end_ids=[END]) == {*tokens_of("b", "bc"), END}


def test_end_tokens_are_allowed_where_the_text_may_end_and_only_there() -> None:
    start = GRAMMARS.compile(Regex("a+"))
    assert allowed(start, end_ids=[END, TURN]) == {ord("a"), spell("aa")[0]}
    one = start.after(ord("a"))
    assert allowed(one, end_ids=[END, TURN]) == {ord("a"), spell("aa")[0], END, TURN}
    assert allowed(one) == {ord("a"), spell("aa")[0]}
    ended = one.after(TURN)
    assert ended.accepting
    assert ended.complete
    assert allowed(ended, end_ids=[END]) == {END}


def test_an_end_token_that_is_text_may_be_that_text() -> None:
    start = GRAMMARS.compile(Regex("a\nb+"))
    line = start.after(ord("a"))
    assert allowed(line, end_ids=[ord("\n")]) == {ord("\n")}
    # Here the grammar does not allow it as text, but the text may end.
    end = after(line, [ord("\n"), ord("b")])
    assert ord("\n") in allowed(end, end_ids=[ord("\n")])
    assert end.after(ord("\n")).complete


def test_a_token_that_is_not_allowed_ends_a_text_that_may_end_and_else_leads_to_a_dead_state() -> None:
    state = GRAMMARS.compile(Regex("ab+")).after(ord("x"))
    assert not state.accepting
    assert not state.complete
    assert allowed(state, end_ids=[END]) == set()
    start = GRAMMARS.compile(Regex("a+")).after(ord("a"))
    before = allowed(start)
    assert start.after(SIZE + 7).complete
    assert allowed(start) == before
    assert GRAMMARS.compile(Regex("the name (a|b)")).after(ord("t")) is DEAD


def test_a_state_outlives_a_matcher_that_failed() -> None:
    state: Any = after(GRAMMARS.compile(Regex("[ab]+c")), [ord("a"), ord("b")])
    before = allowed(state)
    # A matcher fails so when a token takes more work than the library's bounds allow.
    assert not state._sequence.matcher.consume_token(SIZE + 9)
    assert allowed(state) == before
    assert state.after(ord("c")).complete


def test_a_dead_end_of_one_alternative_does_not_close_another() -> None:
    state = GRAMMARS.compile(Lark(f'start: "a" ("b" <[{SIZE}]> | "c" "d")')).after(ord("a"))
    dead = state.after(ord("b"))
    assert allowed(dead) == set()
    assert not dead.complete
    assert allowed(state.after(ord("c"))) == {ord("d")}
    assert state.after(ord("c")).after(ord("d")).complete


def test_the_initial_state_of_a_grammar_never_consumes_a_token() -> None:
    start: Any = GRAMMARS.compile(Regex("[ab]{40}"))
    random_text(start, random.Random(0))
    assert start._sequence.tokens == []


def test_special_tokens_and_ids_without_a_token_are_no_text() -> None:
    anything = allowed(GRAMMARS.compile(Regex("(?s:.)+")))
    assert not anything & {END, TURN, HOLE, HOLE + 1}
    assert not matches(Regex("x"), TOKENS[END].decode())
    assert allowed(GRAMMARS.compile(Lark('start: <|turn|> "a"'))) == {TURN}


def test_a_text_is_complete_where_no_token_continues_it() -> None:
    state = GRAMMARS.compile(Regex("[0-9]{3}"))
    for digit in "123":
        assert not state.complete
        state = state.after(ord(digit))
    assert state.complete
    row = replace(make_row((1,), (49, 50, 51)), grammar=state)
    assert finish_of(row) == "stop"


def test_a_text_is_complete_where_the_vocabulary_cannot_go_on() -> None:
    special = GRAMMARS.compile(Lark(f'start: "a" <[{SIZE}]>?'))
    assert special.after(ord("a")).complete
