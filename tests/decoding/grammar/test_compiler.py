from __future__ import annotations

import random

import pytest

from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.grammar.state import ANYTHING, DEAD
from decodery.decoding.request.grammar_params import Choice, Grammar, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.rows import GrammarState
from decodery.errors import ParameterError
from tests.decoding.grammar.token_sequences import (
    END,
    EXAMPLES,
    GRAMMARS,
    HOLE,
    PIECES,
    SIZE,
    allowed,
    allowed_in,
    matches,
    random_text,
    spell,
    unspell,
)

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
    (JsonSchema({"type": "nope"}), r"JsonSchema is no JSON schema: .* at /type"),
    # Older drafts do not know these keywords, or do not say what their values are.
    (JsonSchema({"$ref": 5}), r"JsonSchema is no JSON schema: .* at /\$ref"),
    (JsonSchema({"prefixItems": 5}), r"JsonSchema is no JSON schema: .* at /prefixItems"),
    (JsonSchema({"items": [{"prefixItems": 5}]}), r"JsonSchema is no JSON schema: "),
    (JsonSchema({"exclusiveMinimum": True, "if": 5}), r"JsonSchema is no JSON schema: "),
    (JsonSchema({"type": "string", "pattern": "x("}), r"JsonSchema has a pattern .*parenthesis"),
    (JsonSchema({"not": {}}), r"JsonSchema .*Unsatisfiable"),
    (JsonSchema({"type": "array", "uniqueItems": True}), r"JsonSchema .*uniqueItems"),
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
def test_a_grammar_that_cannot_be_compiled_is_an_error_of_one_line(grammar: Grammar, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as refused:
        GRAMMARS.compile(grammar)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 400
    assert message.startswith(type(grammar).__name__)


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
    grammars = GrammarCompiler(GRAMMARS._tokenizer)
    assert grammars.compile(Regex("a+")) is grammars.compile(Regex("a+"))


class TestHealing:
    def test_the_text_begins_with_the_removed_token_or_with_a_longer_one(self) -> None:
        prompt = [ord("x"), ord(" "), spell("the")[0]]
        healed = GRAMMARS.heal(prompt, None)
        assert (healed.prompt, healed.cut) == (prompt[:-1], 3)
        assert healed.state is not None
        expected = {i for i, p in enumerate(PIECES) if p and (p.startswith(b"the") or b"the".startswith(p))}
        assert allowed(healed.state, end_ids=[END]) == expected
        assert not healed.state.accepting

    def test_shorter_tokens_must_spell_the_removed_token_before_anything_is_allowed(self) -> None:
        state = GRAMMARS.heal([1, spell("the")[0]], None).state
        assert state is not None
        state = state.after(ord("t"))
        assert allowed(state, end_ids=[END]) == {ord("h")}
        state = state.after(ord("h"))
        assert state is not ANYTHING
        assert state.after(ord("e")) is ANYTHING
        assert state.after(ord("x")) is DEAD

    def test_a_longer_token_may_replace_the_removed_one(self) -> None:
        state = GRAMMARS.heal([1, ord("a")], None).state
        assert state is not None
        assert spell("abc")[0] in allowed(state)
        assert state.after(spell("abc")[0]) is ANYTHING
        assert allowed_in([ANYTHING])[0] == set(range(SIZE))

    @pytest.mark.parametrize("grammar", EXAMPLES, ids=lambda g: type(g).__name__)
    def test_with_a_grammar_what_follows_the_healed_text_matches_it(self, grammar: Grammar) -> None:
        for seed in range(8):
            healed = GRAMMARS.heal([1, ord(" ")], grammar)
            assert healed.state is not None
            tokens, state = random_text(healed.state, random.Random(seed), most=80, ends=0.5)
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

    def test_no_token_is_removed_that_is_special_or_partial_or_the_only_one(self) -> None:
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
