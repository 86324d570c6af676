from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.processors.pipeline import plans_of, process
from decodery.decoding.recorder import Choice, Recorder
from decodery.decoding.request.grammar_params import Choice as ChoiceOf
from decodery.decoding.request.grammar_params import Grammar, JsonObject, Regex
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.rows import GrammarState, Row
from decodery.decoding.strategies.fused_sampling import FUSED_STAGES, can_fuse, sample_fused
from decodery.decoding.trace import Considered
from tests.decoding.grammar.token_sequences import END, GRAMMARS, SIZE
from tests.decoding.records import assert_same_records
from tests.decoding.rows import make_row
from tests.kernels.native.fixtures import built

pytestmark = built

VOCAB = 700


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Returns a row that uses some of the kernel's stages and no others."""
    choices: dict[str, list[Any]] = {
        "temperature": [0.0, 0.7, 1.0, 1.9],
        "top_k": [0, 1, 15, 16, 50, 511, 600, 2000],
        "top_p": [1.0, 0.95, 0.3, 1e-6],
        "min_p": [0.0, 0.05, 1.0],
        "repetition_penalty": [1.0, 1.2, 0.8],
        "presence_penalty": [0.0, 0.5],
        "frequency_penalty": [0.0, -0.3],
        "penalty_range": [0, 3],
        "penalize_prompt": [True, False],
    }
    params = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    tokens = st.lists(st.integers(0, VOCAB - 1), max_size=12)
    return make_row([1, *draw(tokens)], draw(tokens), seed=draw(st.integers(0, 2**64 - 1)), **params)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=5), st.integers(0, 2**31), st.sampled_from([8, 1, 0.2]))
def test_the_fused_kernel_gives_the_tokens_of_stage_after_stage(
    some: list[Row], seed: int, fine: float
) -> None:
    raw = torch.randn(len(some), VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    raw = (raw * fine).round() / fine  # Coarse logits tie, also where truncation cuts.
    raw[:, ::7] = -math.inf
    before = raw.clone()
    found, _ = sample_fused(raw, some, plans_of(some))
    assert torch.equal(raw, before)
    assert can_fuse(raw, some, plans_of(some))
    assert found == choose(process(raw, some), some)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=5), st.integers(0, 2**31), st.sampled_from([8, 1, 0.2]))
def test_the_fused_kernel_records_what_a_recorder_of_the_stages_does(
    some: list[Row], seed: int, fine: float
) -> None:
    raw = torch.randn(len(some), VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    raw = (raw * fine).round() / fine
    raw[:, ::7] = -math.inf
    some = [replace(row, explain=(0, 1, 9, 2 * VOCAB)[(seed + i) % 4]) for i, row in enumerate(some)]
    tokens, found = sample_fused(raw, some, plans_of(some))
    assert_same_records(found, recorded(raw, some, tokens))


def recorded(raw: Tensor, some: list[Row], tokens: list[int]) -> list[Considered | None]:
    """Returns what the rows that explain considered, by a recorder of their stages."""
    recorder = Recorder(raw, some)
    process(raw, some, recorder)
    choices = [
        Choice(i, token, None if row.params.greedy else draw_key_of(row))
        for i, (row, token) in enumerate(zip(some, tokens, strict=True))
        if row.explain and token >= 0
    ]
    records = {c.place: r for c, r in zip(choices, recorder.considered(choices), strict=True)}
    return [records.get(i) for i in range(len(some))]


@pytest.mark.parametrize("cut", [{}, {"top_k": 3, "top_p": 0.9}, {"temperature": 0.0}])
@pytest.mark.parametrize("grammar", [JsonObject(), Regex("(ab|a)*c?"), ChoiceOf(("red", "reader"))])
def test_a_choice_that_the_grammar_bans_is_made_again(grammar: Grammar, cut: dict[str, Any]) -> None:
    params = {"temperature": 1.3, "repetition_penalty": 1.1, **cut}
    state: GrammarState = GRAMMARS.compile(grammar)
    source = torch.Generator().manual_seed(0)
    tokens: list[int] = []
    again = 0
    for seed in range(40):
        row = replace(make_row([1], tokens, end_ids=[END], seed=seed, **params), grammar=state)
        raw = torch.randn(1, SIZE, generator=source) * 5
        expected = choose(process(raw, [row]), [row])
        explained = replace(row, explain=4)
        tokens_and_records = sample_fused(raw, [explained], plans_of([row]))
        assert_same_records(tokens_and_records[1], recorded(raw, [explained], expected))
        assert sample_fused(raw, [row], plans_of([row]))[0] == expected
        again += choose(process(raw, [replace(row, grammar=None)]), [row]) != expected
        if expected[0] < 0 or expected[0] == END:
            break
        tokens += expected
        state = state.after(expected[0])
    assert again


@pytest.mark.parametrize(
    "params",
    [
        {"typical_p": 0.5},
        {"dynatemp_range": 0.1},
        {"processor_order": DEFAULT_ORDER[::-1]},
        {"logit_bias": {3: 1.0}},
    ],
)
def test_rows_with_another_stage_or_order_are_not_fused(params: dict[str, Any]) -> None:
    some = [make_row(temperature=0.5, top_k=5), make_row(temperature=0.5, top_k=5, **params)]
    assert not can_fuse(torch.zeros(2, 40), some, plans_of(some))
    assert can_fuse(torch.zeros(1, 40), some[:1], plans_of(some[:1]))


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("logits", [math.nan, -math.inf])
def test_a_row_without_a_possible_token_gets_minus_one(top_k: int, logits: float) -> None:
    row = make_row(temperature=0.5, top_k=top_k, top_p=0.9)
    raw = torch.full((1, 40), -math.inf)
    raw[0, 3] = logits
    assert sample_fused(raw, [replace(row, explain=3)], plans_of([row])) == ([-1], [None])


def test_the_stages_of_the_kernel_have_the_default_order() -> None:
    assert [stage for stage in DEFAULT_ORDER if stage in FUSED_STAGES] == list(FUSED_STAGES)
