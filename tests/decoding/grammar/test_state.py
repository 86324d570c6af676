from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from decodery.decoding.grammar.state import ANYTHING, DEAD, ENDED, Grammars, apply_grammar, permits
from decodery.decoding.processors.pipeline import PROCESSORS
from decodery.decoding.request.grammar_params import Choice, Grammar, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.rows import GrammarState
from decodery.decoding.stopping import finish_of
from decodery.errors import ParameterError
from tests.decoding.grammar.token_sequences import (
    END,
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
    spell,
    unspell,
    walk,
)
from tests.decoding.rows import make_row

PERSON = JsonSchema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        },
        "required": ["name", "tags"],
        "additionalProperties": False,
    }
)
ARITHMETIC = Lark('start: sum\nsum: sum "+" term | term\nterm: NUMBER | "(" sum ")"\nNUMBER: /[0-9]{1,3}/')
ALL: tuple[Grammar, ...] = (
    PERSON,
    ARITHMETIC,
    JsonObject(),
    Regex(r"(ab|a)*c?[0-9]{2}"),
    Choice(("red", "red green", "reader", "blue")),
)


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
    """The tokens with these texts; some texts have two."""
    return {i for i, piece in enumerate(PIECES) if piece.decode("utf-8", "replace") in texts}


@pytest.mark.parametrize("seed", range(200))
def test_random_regexes_make_texts_that_match_and_let_through_what_matches(seed: int) -> None:
    source = random.Random(seed)
    pattern = random_regex(source)
    tokens, state = walk(GRAMMARS.compile(Regex(pattern)), source, most=60)
    if state.accepting:
        assert re.fullmatch(pattern, unspell(tokens))
    for _ in range(4):
        text = "".join(source.choices(["a", "b", "c", "7", "é", "the", "."], k=source.randint(1, 5)))
        assert matches(Regex(pattern), text) == bool(re.fullmatch(pattern, text)), (pattern, text)


def test_a_choice_lets_through_its_options_and_nothing_else() -> None:
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
        unspell(walk(GRAMMARS.compile(Choice(options)), random.Random(i), ends=0.5)[0]) for i in range(300)
    }
    assert found == set(options)


def test_a_lark_grammar_lets_through_its_texts() -> None:
    for text in ("1", "1+22", "(1+2)+3", "((7))"):
        assert matches(ARITHMETIC, text)
    for text in ("", "+", "1+", "(1", "1234"):
        assert not matches(ARITHMETIC, text)


@pytest.mark.parametrize("grammar", ALL, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("seed", range(4))
def test_states_are_values_however_they_are_forked_and_rewound(grammar: Grammar, seed: int) -> None:
    source = random.Random(seed)
    start = GRAMMARS.compile(grammar)
    known: list[tuple[GrammarState, list[int]]] = [(start, [])]
    for _ in range(40):
        state, tokens = source.choice(known[-6:] if source.random() < 0.5 else known)
        choices = sorted(allowed(state))
        if choices:
            token = source.choice(choices)
            known.append((state.after(token), [*tokens, token]))
    fresh = Grammars(GRAMMARS._tokenizer)
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
    walk(one, random.Random(1), ends=0)
    assert one.after(ord("d")) is DEAD
    assert allowed(one) == before
    assert allowed(start) == allowed(GRAMMARS.compile(Regex("(a|b)+c")))


def test_a_state_that_was_asked_of_a_token_goes_on_by_any() -> None:
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
        again = after(Grammars(GRAMMARS._tokenizer).compile(JsonObject()), tokens)
        assert allowed(state) == allowed(again)


class Interrupted(list[int]):
    """Tokens that cannot be noted."""

    def append(self, token: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("ask", [False, True], ids=["goes on", "asks"])
def test_a_state_whose_step_was_interrupted_is_what_it_was(ask: bool) -> None:
    start = GRAMMARS.compile(Regex("x[a-z]12[0-9]"))
    state: Any = start.after(ord("x"))
    before = allowed(after(start, [ord("x")]))
    state._line.tokens = Interrupted(state._line.tokens)
    with pytest.raises(KeyboardInterrupt):
        permits(replace(make_row(), grammar=state), ord("b")) if ask else state.after(ord("b"))
    assert allowed(state) == before
    assert allowed(state.after(ord("c"))) == allowed(after(start, [ord("x"), ord("c")]))


def test_a_grammar_that_cannot_be_rolled_back_forks_rightly() -> None:
    start = GRAMMARS.compile(Lark('start: word "!"\nword[max_tokens=3]: /[a-z]+/'))
    two = after(start, [ord("x"), ord("y")])
    ends = [after(two, [ord(c), ord("!")]) for c in "abc"]
    assert all(end.complete for end in ends)
    assert allowed(two) == allowed(after(start, [ord("x"), ord("y")]))


@pytest.mark.parametrize("grammar", ALL, ids=lambda g: type(g).__name__)
def test_the_masks_of_all_rows_at_once_are_those_of_each_alone(grammar: Grammar) -> None:
    source = random.Random(3)
    states: list[GrammarState | None] = [
        GRAMMARS.compile(grammar),
        GRAMMARS.compile(ALL[0]),
        None,
        ANYTHING,
        ENDED,
        DEAD,
    ]
    for steps in (1, 3, 8):
        states.append(walk(GRAMMARS.compile(grammar), source, most=steps, ends=0)[1])
    # The same state twice, and two states of one history.
    older = walk(GRAMMARS.compile(ALL[0]), source, most=4)[1]
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


@pytest.mark.parametrize("grammar", ALL, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_forced_tokens_are_allowed_alone_and_the_same_one_at_a_time(grammar: Grammar, seed: int) -> None:
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


def test_what_is_forced_does_not_depend_on_where_one_asks() -> None:
    def spelling(text: str) -> list[int]:
        return spell(text) if text.startswith("the") else list(text.encode())

    state = grammars_spelled(spelling).compile(Regex("the name red value(a|b)"))
    at_once = state.forced
    for place, token in enumerate(at_once):
        assert state.forced == at_once[place:]
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
    # Here it is no text of the grammar, but the text may end.
    end = after(line, [ord("\n"), ord("b")])
    assert ord("\n") in allowed(end, end_ids=[ord("\n")])
    assert end.after(ord("\n")).complete


def test_a_token_that_is_not_allowed_leaves_no_way_on() -> None:
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
    # As when a token takes more work than the library's bounds allow.
    assert not state._line.matcher.consume_token(SIZE + 9)
    assert allowed(state) == before
    assert state.after(ord("c")).complete


def test_a_dead_end_of_one_way_does_not_close_another() -> None:
    state = GRAMMARS.compile(Lark(f'start: "a" ("b" <[{SIZE}]> | "c" "d")')).after(ord("a"))
    dead = state.after(ord("b"))
    assert allowed(dead) == set()
    assert not dead.complete
    assert allowed(state.after(ord("c"))) == {ord("d")}
    assert state.after(ord("c")).after(ord("d")).complete


def test_the_first_state_of_a_grammar_is_left_where_it_is() -> None:
    start: Any = GRAMMARS.compile(Regex("[ab]{40}"))
    walk(start, random.Random(0))
    assert start._line.tokens == []


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


REFUSED = [
    (Regex("(a"), r"Regex .*unclosed group at offset 0"),
    (Regex("ab[z-a]"), r"Regex .*range.* at offset 3"),
    (Regex("a(?=b)"), r"Regex .*look-ahead.* not supported at offset 1"),
    (Regex(r"(a)\1"), r"Regex .*backreferences are not supported at offset 3"),
    (Regex("ab\\"), r"Regex .*backslash at its end, offset 2"),
    (Regex(r"a\bb"), r"Regex .*"),
    (Regex("(" * 400 + ")" * 400), r"Regex .*nest"),
    (Regex("[^\x00-\U0010ffff]"), r"Regex matches no text"),
    (Regex("a{0}"), r"Regex matches only the empty text"),
    (Regex("a\ud800"), r"Regex .*"),
    (Choice(("\ud800",)), r"Choice .*"),
    (JsonSchema({"type": "nope"}), r"JsonSchema .*Invalid type: nope"),
    (JsonSchema({"type": "string", "pattern": "x("}), r"JsonSchema .*unclosed group at offset 1"),
    (JsonSchema({"not": {}}), r"JsonSchema .*not"),
    (JsonSchema({"type": "array", "uniqueItems": True}), r"JsonSchema .*uniqueItems"),
    (JsonSchema({"$ref": "#/x"}), r"JsonSchema .*/x"),
    (JsonSchema({"$ref": "https://example.com/s"}), r"JsonSchema .*example.com"),
    (JsonSchema({"$ref": "#"}), r"JsonSchema matches no text"),
    (JsonSchema(False), r"JsonSchema .*"),
    (JsonSchema({"type": "integer", "minimum": 3, "maximum": 2}), r"JsonSchema .*minimum"),
    (JsonSchema({"enum": []}), r"JsonSchema .*empty"),
    (Lark("start: a"), r"Lark .*line 1, column 8: unknown name"),
    (Lark('start: "a"\nb: "c'), r"Lark .*line 2, column \d+: "),
    (Lark('begin: "a"'), r"Lark .*no start rule"),
    (Lark("start: A\nA: B\nB: A"), r"Lark .*line 3.*circular"),
    (Lark("start: start"), r"Lark matches no text"),
    (Lark("start: /a(/"), r"Lark .*line 1, column 8: unclosed group at offset 1"),
    (Lark("start: <|nobody|>"), r"Lark .*unknown special token"),
    (Lark("start: word\nword[temperature=0.5]: /[a-z]+/"), r"Lark .*'word' temperature="),
    (Lark('start: word "x"\nword[capture, stop="!"]: /[a-z]+/'), r"Lark .*'word' stop="),
    (
        Lark("start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(9000)) + '\nr9000: "x"'),
        r"Lark .*rules",
    ),
]


@pytest.mark.parametrize(
    ("grammar", "message"), REFUSED, ids=lambda x: repr(x)[:40].encode("ascii", "replace").decode()
)
def test_what_cannot_be_followed_is_one_clear_line(grammar: Grammar, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as refused:
        GRAMMARS.compile(grammar)
    told = str(refused.value)
    assert "\n" not in told
    assert len(told) < 400
    assert told.startswith(type(grammar).__name__)


@pytest.mark.parametrize("depth", [400, 20000])
def test_a_schema_nested_without_end_is_refused(depth: int) -> None:
    definitions = {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(depth)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{depth}": {"type": "string"}}}
    with pytest.raises(ParameterError, match="JsonSchema is nested more than"):
        GRAMMARS.compile(JsonSchema(schema))


def test_a_large_flat_schema_is_followed() -> None:
    definitions = {f"a{i}": {"type": "array", "items": {"$ref": "#/$defs/leaf"}} for i in range(300)}
    schema = {
        "$ref": "#/$defs/top",
        "$defs": {
            **definitions,
            "leaf": {"enum": ["x"]},
            "top": {"anyOf": [{"$ref": f"#/$defs/a{i}"} for i in range(300)]},
        },
    }
    assert matches(JsonSchema(schema), '["x", "x"]')


def test_white_space_in_json_has_a_bound() -> None:
    for text in ('{"a":1}', '{ "a": 1 }', '{\n  "a": 1\n}', '{\r\n\t"a" : 1}'):
        assert matches(JsonObject(), text)
    assert not matches(JsonObject(), '{    "a":1}')
    assert not matches(JsonObject(), "{\n" + " " * 60 + '"a":1}')
    own = JsonSchema({"type": "object", "x-guidance": {"whitespace_flexible": False}})
    assert matches(own, '{"a":1}')
    assert not matches(own, '{"a": 1}')


def test_the_same_grammar_is_compiled_once() -> None:
    grammars = Grammars(GRAMMARS._tokenizer)
    assert grammars.compile(Regex("a+")) is grammars.compile(Regex("a+"))


class TestHealing:
    def test_the_text_begins_with_the_token_taken_back_or_goes_beyond_it(self) -> None:
        prompt = [ord("x"), ord(" "), spell("the")[0]]
        healed = GRAMMARS.heal(prompt, None)
        assert (healed.prompt, healed.cut) == (prompt[:-1], 3)
        assert healed.state is not None
        expected = {i for i, p in enumerate(PIECES) if p and (p.startswith(b"the") or b"the".startswith(p))}
        assert allowed(healed.state, end_ids=[END]) == expected
        assert not healed.state.accepting

    def test_a_piece_at_a_time_the_rest_must_follow_and_then_anything(self) -> None:
        state = GRAMMARS.heal([1, spell("the")[0]], None).state
        assert state is not None
        state = state.after(ord("t"))
        assert allowed(state, end_ids=[END]) == {ord("h")}
        state = state.after(ord("h"))
        assert state is not ANYTHING
        assert state.after(ord("e")) is ANYTHING
        assert state.after(ord("x")) is DEAD

    def test_a_longer_token_may_take_its_place(self) -> None:
        state = GRAMMARS.heal([1, ord("a")], None).state
        assert state is not None
        assert spell("abc")[0] in allowed(state)
        assert state.after(spell("abc")[0]) is ANYTHING
        assert allowed_in([ANYTHING])[0] == set(range(SIZE))

    @pytest.mark.parametrize("grammar", ALL, ids=lambda g: type(g).__name__)
    def test_with_a_grammar_what_follows_the_healed_text_matches_it(self, grammar: Grammar) -> None:
        for seed in range(8):
            healed = GRAMMARS.heal([1, ord(" ")], grammar)
            assert healed.state is not None
            tokens, state = walk(healed.state, random.Random(seed), most=80, ends=0.5)
            text = unspell(tokens) if state.accepting else ""
            if text:
                assert text[: healed.cut] == " "
                assert matches(grammar, text[healed.cut :])

    def test_a_token_may_reach_from_the_healed_text_into_the_grammar(self) -> None:
        state = GRAMMARS.heal([1, ord(" ")], Choice(("the end", "thin"))).state
        assert state is not None
        assert spell(" the")[0] in allowed(state)
        assert spell(" a")[0] not in allowed(state)
        inside = state.after(spell(" the")[0])
        assert matches_rest(inside, " end")

    def test_nothing_is_healed_where_it_has_no_sense(self) -> None:
        for prompt in (
            [ord("a")],
            [1, END],
            [1, "é".encode()[0]],
            [1, "é".encode()[1]],
            [1, HOLE],
            [1, SIZE + 3],
        ):
            healed = GRAMMARS.heal(prompt, None)
            assert (healed.prompt, healed.state, healed.cut) == (prompt, None, 0)
        kept = GRAMMARS.heal([ord("a")], Regex("b+"))
        assert kept.state is GRAMMARS.compile(Regex("b+"))

    def test_the_cut_counts_characters(self) -> None:
        assert GRAMMARS.heal([1, spell("日本")[0]], None).cut == 2


def matches_rest(state: GrammarState, text: str) -> bool:
    for token in spell(text):
        if token not in allowed(state):
            return False
        state = state.after(token)
    return state.accepting
