"""Provides a small vocabulary, and random texts of grammars over it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from llguidance import LLTokenizer

from decodery.decoding.grammar.compiler import GrammarCompiler
from decodery.decoding.grammar.state import apply_grammar
from decodery.decoding.request.grammar_params import Choice, Grammar, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.rows import GrammarState
from tests.decoding.rows import make_row

_PIECES = (
    *(
        '":',
        '", "',
        '{"',
        '"}',
        "[]",
        "}}",
        "true",
        "false",
        "null",
        '": ',
        "],",
        "12",
        "00",
        "-1",
        "0.",
        "e+",
    ),
    *(
        "ab",
        "abc",
        "bc",
        "aa",
        " a",
        " the",
        "the",
        "an",
        "é",
        "ü",
        "日",
        "日本",
        "\n\n",
        "  ",
        ".*",
        "a.",
        "\\n",
    ),
    *("name", '"name', "red", "green", "blue", "b", "items", "value"),
)
PIECES = [bytes([b]) for b in range(256)] + [piece.encode() for piece in dict.fromkeys(_PIECES)]
END = len(PIECES)
TURN = END + 1
HOLE = END + 2
TOKENS = [*PIECES, b"<|end|>", b"<|turn|>", b"", b""]
SIZE = len(TOKENS)


class _Small:
    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = SIZE
    special_token_ids = (END, TURN)
    tokens = (*TOKENS, b"")

    def __init__(self, spelling: Callable[[str], list[int]]) -> None:
        self._spelling = spelling

    def __call__(self, text: str) -> list[int]:
        return self._spelling(text)


def spell(text: str) -> list[int]:
    """Returns the tokens of a text, the longest possible at each position."""
    left, ids = text.encode(), []
    while left:
        piece = max((p for p in PIECES if left.startswith(p)), key=len)
        ids.append(PIECES.index(piece))
        left = left[len(piece) :]
    return ids


def unspell(tokens: Sequence[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens if token < END).decode()


def grammars_spelled(spelling: Callable[[str], list[int]]) -> GrammarCompiler:
    """Returns a compiler over the small vocabulary, whose forced text is tokenized by `spelling`."""
    return GrammarCompiler(LLTokenizer(_Small(spelling)))  # type: ignore[arg-type]


GRAMMARS = grammars_spelled(spell)
BYTEWISE = grammars_spelled(lambda text: list(text.encode()))

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
EXAMPLES: tuple[Grammar, ...] = (
    PERSON,
    ARITHMETIC,
    JsonObject(),
    Regex(r"(ab|a)*c?[0-9]{2}"),
    Choice(("red", "red green", "reader", "blue")),
)


def allowed(state: GrammarState, *, end_ids: Sequence[int] = ()) -> set[int]:
    """Returns the tokens that the processor leaves possible."""
    return allowed_in([state], end_ids=end_ids)[0]


def allowed_in(
    states: Sequence[GrammarState | None], *, end_ids: Sequence[int] = (), size: int = SIZE
) -> list[set[int]]:
    """Returns the tokens that the processor leaves possible for each of several rows, in one call."""
    rows = [replace(make_row(end_ids=end_ids), grammar=state) for state in states]
    logits = torch.zeros(len(rows), size)
    apply_grammar(logits, rows)
    return [set((row > -1).nonzero().flatten().tolist()) for row in logits]


def allowed_tokens(state: GrammarState | None, size: int) -> set[int]:
    """Returns the tokens that are possible in a vocabulary of this size."""
    return allowed_in([state], size=size)[0]


def after(state: GrammarState, tokens: Sequence[int]) -> GrammarState:
    for token in tokens:
        state = state.after(token)
    return state


def matches(grammar: Grammar, text: str) -> bool:
    """True if the masks allow a text, one byte at a time, and it may end there."""
    state = BYTEWISE.compile(grammar)
    for byte in text.encode():
        if byte not in allowed(state):
            return False
        state = state.after(byte)
    return state.accepting


def random_text(
    state: GrammarState, source: random.Random, *, most: int = 400, ends: float = 0.2
) -> tuple[list[int], GrammarState]:
    """Returns a random text and the state after it.

    At each step any allowed token is chosen; where the text may end, it ends with probability `ends`.
    """
    tokens: list[int] = []
    while len(tokens) < most and not state.complete:
        if state.accepting and source.random() < ends:
            break
        choices = sorted(allowed(state))
        assert choices, f"no token is allowed after {unspell(tokens)!r}"
        tokens.append(source.choice(choices))
        state = state.after(tokens[-1])
    return tokens, state
