from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery.decoding.processors import pipeline
from decodery.decoding.processors.pipeline import Processor, process
from decodery.decoding.recorder import Recorder
from tests.decoding.processors.tables import logs
from tests.decoding.rows import make_row

LOGITS = torch.tensor([logs(4, 2, 1, 1)])


def test_stages_show_what_each_processor_did_to_the_candidates() -> None:
    row = replace(
        make_row(suppress_tokens=[2], top_k=2, min_p=0.001, top_p=0.6, renormalize_logits=True), explain=2
    )
    recorder = Recorder(LOGITS, [row])
    processed = process(LOGITS, [row], recorder)
    considered = recorder.considered(0, processed[0], 0)
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
    recorder = Recorder(LOGITS, [row])
    considered = recorder.considered(0, process(LOGITS, [row], recorder)[0], 3)
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
    processed = process(logits, rows, recorder)
    both = [recorder.considered(i, processed[i], 0) for i in range(2)]
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
    assert len(recorder.considered(2, plain[2], 0).stages) == 5
    assert recorder.considered(1, plain[1], 0).stages == ()
