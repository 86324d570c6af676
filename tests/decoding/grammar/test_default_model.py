"""Tests grammars over the default model's own vocabulary and spelling."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.request.grammar_params import Choice, JsonSchema, Regex
from decodery.text.tokenizer.grammar_vocab import grammar_vocabulary
from tests.decoding.grammar.token_sequences import allowed_tokens

PERSON = JsonSchema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        },
        "required": ["name", "age", "colours"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
)


@pytest.fixture(scope="module")
def grammars(default_llm: Any) -> GrammarCompiler:
    return GrammarCompiler(grammar_vocabulary(default_llm.tokenizer))


def text_of(tokens: Sequence[int], llm: Any) -> str:
    return b"".join(map(llm.tokenizer.token_bytes, tokens)).decode()


@pytest.mark.parametrize("seed", range(5))
def test_random_tokens_under_a_schema_are_valid(
    default_llm: Any, grammars: GrammarCompiler, seed: int
) -> None:
    source = random.Random(seed)
    state: Any = grammars.compile(PERSON)
    tokens: list[int] = []
    while not state.complete:
        choices = sorted(allowed_tokens(state, default_llm.tokenizer.vocab_size))
        assert not state.forced or choices == [state.forced[0]]
        tokens.append(source.choice(choices))
        state = state.after(tokens[-1])
    person = json.loads(text_of(tokens, default_llm))
    assert len(person["name"]) <= 20
    assert 0 <= person["age"] <= 150
    assert set(person["colours"]) <= {"red", "green", "blue"}


def test_forced_text_is_spelled_as_the_model_spells_it(default_llm: Any, grammars: GrammarCompiler) -> None:
    text = "The capital of France is Paris, and nothing else."
    state: Any = grammars.compile(Choice((text,)))
    tokens: list[int] = []
    while not state.complete:
        assert state.forced
        tokens.append(state.forced[0])
        state = state.after(tokens[-1])
    assert tokens == default_llm.tokenizer.encode(text, add_special_tokens=False)


def test_healing_allows_what_begins_with_the_last_token(default_llm: Any, grammars: GrammarCompiler) -> None:
    tokenizer = default_llm.tokenizer
    prompt = tokenizer.encode("See https:")
    last = tokenizer.token_bytes(prompt[-1])
    healed = grammars.heal(prompt, None)
    assert healed.cut == len(last.decode())
    expected = {
        token
        for token in range(tokenizer.vocab_size)
        if token not in tokenizer.special_ids
        and (spelling := tokenizer.token_bytes(token))
        and (spelling.startswith(last) or last.startswith(spelling))
    }
    assert len(expected) > 1
    assert allowed_tokens(healed.state, tokenizer.vocab_size) == expected


def test_healing_allows_a_token_that_reaches_into_the_grammar(
    default_llm: Any, grammars: GrammarCompiler
) -> None:
    tokenizer = default_llm.tokenizer
    (paris,) = tokenizer.encode(" Paris", add_special_tokens=False)
    prompt = tokenizer.encode("The capital of France is ")
    assert tokenizer.token_bytes(prompt[-1]) == b" "
    healed = grammars.heal(prompt, Regex("(Paris|London)\\."))
    assert healed.state is not None
    assert paris in allowed_tokens(healed.state, tokenizer.vocab_size)
    rest: Any = healed.state.after(paris)
    assert text_of(rest.forced, default_llm) == "."
