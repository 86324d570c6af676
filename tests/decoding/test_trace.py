from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery import LLM, Choice, GenerationParams
from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.event import Event
from decodery.decoding.processors import pipeline
from decodery.decoding.processors.pipeline import Processor, process
from decodery.decoding.recorder import Choice as Chosen
from decodery.decoding.recorder import Recorder
from decodery.decoding.rows import Row
from decodery.decoding.trace import Considered
from tests.decoding.processors.tables import logs
from tests.decoding.rows import make_row

LOGITS = torch.tensor([logs(4, 2, 1, 1)])


def recorded(row: Row, token: int) -> Considered:
    """Returns what a row considered when it took this token by `LOGITS`."""
    recorder = Recorder(LOGITS, [row])
    process(LOGITS, [row], recorder)
    [considered] = recorder.considered([Chosen(0, token)])
    return considered


def test_stages_show_what_each_processor_did_to_the_candidates() -> None:
    row = replace(
        make_row(suppress_tokens=[2], top_k=2, min_p=0.001, top_p=0.6, renormalize_logits=True), explain=2
    )
    considered = recorded(row, 0)
    assert [(stage.name, stage.kept) for stage in considered.stages] == [
        ("suppress_tokens", 3),
        ("top_k", 2),
        ("top_p", 1),
        ("renormalize", 1),
    ], "min_p changed nothing"
    expected = [(4 / 7, 2 / 7), (4 / 6, 2 / 6), (1.0, 0.0), (1.0, 0.0)]
    for stage, probabilities in zip(considered.stages, expected, strict=True):
        assert stage.probabilities == pytest.approx(probabilities)
    assert considered.kept == 1
    assert considered.entropy == pytest.approx(1.75)
    assert considered.allowed is None
    assert not considered.forced


def test_the_chosen_token_is_among_the_candidates_of_every_stage() -> None:
    row = replace(make_row(temperature=0.5), explain=1)
    considered = recorded(row, 3)
    assert [c.token for c in considered.candidates] == [0, 3]
    assert considered.stages[0].probabilities == pytest.approx((16 / 22, 1 / 22))
    assert considered.after == pytest.approx(1 / 22)


def test_the_tokens_that_a_grammar_allows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_few(logits: torch.Tensor, rows: object) -> None:
        logits[0, 1:] = -math.inf
        logits[1, 2:] = -math.inf

    monkeypatch.setitem(pipeline.PROCESSORS, "grammar", Processor(lambda row: True, leave_few))
    rows = [replace(make_row(top_k=1), explain=2)] * 2
    logits = LOGITS.repeat(2, 1)
    recorder = Recorder(logits, rows)
    process(logits, rows, recorder)
    both = recorder.considered([Chosen(0, 0), Chosen(1, 0)])
    assert [(c.allowed, c.forced, c.kept) for c in both] == [(1, True, 1), (2, False, 1)]
    assert [[stage.name for stage in c.stages] for c in both] == [["grammar"], ["grammar", "top_k"]]


def test_explaining_changes_no_bit_and_explains_no_other_row() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3000, generator=generator) * 3
    params: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 30,
        "top_p": 0.9,
        "typical_p": 0.8,
        "repetition_penalty": 1.2,
    }
    rows = [make_row([1, 2], seed=i, **params) for i in range(4)]
    plain = process(logits, rows)
    explained = [replace(row, explain=3 * (i == 2)) for i, row in enumerate(rows)]
    recorder = Recorder(logits, explained)
    assert torch.equal(process(logits, explained, recorder), plain)
    assert len(recorder.considered([Chosen(2, 0)])[0].stages) == 5


def test_the_drawn_token_has_the_largest_sum_of_log_probability_and_noise() -> None:
    for seed in range(200):
        row = replace(make_row(temperature=0.8, top_k=3, seed=seed), explain=4, seed=seed)
        recorder = Recorder(LOGITS, [row])
        processed = process(LOGITS, [row], recorder)
        [token] = choose(processed, [row])
        [considered] = recorder.considered([Chosen(0, token, draw_key_of(row))])
        sums = {
            c.token: math.log(c.after) + c.noise
            for c in considered.candidates
            if c.after and c.noise is not None
        }
        assert max(sums, key=sums.__getitem__) == token
        assert considered.draw_key == draw_key_of(row)


def test_logits_are_the_models_and_the_tail_is_what_the_candidates_lack() -> None:
    row = replace(make_row(temperature=0.5, top_k=1), explain=2)
    considered = recorded(row, 0)
    assert [c.logit for c in considered.candidates] == LOGITS[0, :2].tolist()
    assert [c.noise for c in considered.candidates] == [None, None]
    assert considered.tail == pytest.approx(2 / 8)
    assert considered.draw_key is None


def test_an_engines_draws_are_explained_by_their_noise_and_greedy_choices_have_none(
    default_llm: LLM,
) -> None:
    for params, drawn in (
        (GenerationParams(max_tokens=6, top_k=8, seed=3, n=2), True),
        (GenerationParams(max_tokens=6, temperature=0), False),
        (GenerationParams(max_tokens=6, top_k=8, seed=3, grammar=Choice(("yes", "no"))), None),
    ):
        events: list[Event] = []
        default_llm.generate("Is it so?", params, observer=events.append, candidates=8)
        seen = [c for event in events for c in event.considered]
        assert seen
        for considered in seen:
            if drawn is not None:
                assert (considered.draw_key is not None) == drawn
            if considered.allowed is not None and considered.allowed <= 8:
                assert len(considered.allowed_tokens) == considered.allowed
                assert considered.token in considered.allowed_tokens
            if considered.draw_key is not None:
                sums = {c.token: math.log(c.after) + (c.noise or 0) for c in considered.candidates if c.after}
                assert max(sums, key=sums.__getitem__) == considered.token
