"""Checks the engine's own drafts: they change no result, learn, and keep requests of other salts apart."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import Auto
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch
from decodery.engine.drafts.step_time import MOST, StepTime
from decodery.engine.engine import Engine
from decodery.models.contract import CausalModel
from decodery.models.decoders.llama import Llama
from tests.engine.runs import Job, make_engine, outcomes
from tests.engine.test_speculation import VOCAB, Outcome, decode, mixed_jobs, speculating
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

pytestmark = built


class CheapRows(StepTime):
    """Says that a step's time hardly grows with its tokens."""

    known = True  # type: ignore[assignment]

    def times(self) -> array[float]:
        return array("d", [0.0, *(1.0 + 0.001 * n for n in range(MOST))])


def drafting_engine(model: CausalModel, **limits: Any) -> Engine:
    engine = make_engine(model, **limits)
    assert engine._speculator is not None
    engine._speculator._time = CheapRows()
    return engine


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


@pytest.fixture(scope="module")
def plain(model: Llama) -> list[list[Outcome]]:
    return decode(make_engine(model, pages=2000), mixed_jobs()).outcomes


@pytest.mark.parametrize(
    "limits",
    [{"pages": 2000}, {"pages": 40, "token_budget": 16}, {"pages": 60}],
    ids=["plenty", "16", "scarce"],
)
def test_drafts_of_the_engine_change_no_token_no_reason_and_no_logprob(
    model: Llama, plain: list[list[Outcome]], limits: dict[str, Any]
) -> None:
    engine = drafting_engine(model, **limits)
    jobs = speculating(mixed_jobs(), ["auto"])
    found = []
    drafted = 0
    # Few at a time: many rows together draft nothing.
    for start in range(0, len(jobs), 5):
        results = decode(engine, jobs[start : start + 5])
        found += results.outcomes
        drafted += results.accepted
    assert found == plain
    assert drafted > 100
    assert not len(engine._speculator._drafter)  # type: ignore[union-attr]


def test_the_same_text_again_is_drafted_from_the_earlier_one(model: Llama) -> None:
    engine = drafting_engine(model)
    prompt = [random.Random(1).randrange(VOCAB) for _ in range(40)]
    params = GenerationParams(max_tokens=60, temperature=1.5, seed=3, speculate="auto")
    first = decode(engine, [(prompt, params)], explain=2)
    second = decode(engine, [(prompt, params)], explain=2)
    assert first.outcomes == second.outcomes
    assert len(second.events) < len(first.events) / 2
    sources = {s for e in second.events for s in e.draft_sources[: e.accepted]}
    assert "earlier texts" in sources
    for event in second.events:
        assert len(event.draft_sources) == len(event.drafts)


def test_a_request_of_another_salt_drafts_nothing_from_earlier_texts(model: Llama) -> None:
    engine = drafting_engine(model)
    prompt = [random.Random(1).randrange(VOCAB) for _ in range(40)]
    params = GenerationParams(max_tokens=60, temperature=1.5, seed=3, speculate="auto")
    first = decode(engine, [(prompt, params)], salt=b"one")
    second = decode(engine, [(prompt, params)], salt=b"two")
    assert not any("earlier texts" in e.draft_sources for e in second.events)
    assert first.outcomes == second.outcomes
    assert len(decode(engine, [(prompt, params)], salt=b"one").events) < len(first.events) / 2


def test_without_remembered_texts_a_request_learns_nothing_of_another(model: Llama) -> None:
    engine = drafting_engine(model, remember_texts=False)
    params = GenerationParams(max_tokens=60, temperature=0, speculate="auto")
    prompt = [random.Random(1).randrange(VOCAB) for _ in range(40)]
    for _ in range(2):
        found = decode(engine, [(prompt, params)])
        assert found.accepted > 0
        assert not any("earlier texts" in e.draft_sources for e in found.events)
        assert engine._speculator is not None
        assert not len(engine._speculator._drafter)


def test_greedy_text_is_drafted_from_successors(model: Llama) -> None:
    engine = drafting_engine(model)
    params = GenerationParams(max_tokens=300, temperature=0, speculate="auto")
    found = decode(engine, [([3, 1, 4], params)])
    plain = decode(make_engine(model), [([3, 1, 4], params.replace(speculate=None))])
    assert found.outcomes == plain.outcomes
    assert any("successors" in e.draft_sources[: e.accepted] for e in found.events)
    assert found.accepted > 20


def test_many_rows_draft_nothing_and_are_not_searched(model: Llama) -> None:
    engine = drafting_engine(model)
    params = GenerationParams(max_tokens=10, temperature=0, speculate="auto")
    found = decode(engine, [([7, 8, i] * 4, params) for i in range(20)])
    assert found.drafted == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"speculate": None},
        {"stop_when": lambda ids: False},
        {"logits_processors": (lambda ids, logits: logits,)},
        {"mirostat_mode": 2},
        {"guidance_scale": 1.5},
        {"typical_p": 0.9},
    ],
)
def test_requests_that_one_call_cannot_judge_get_no_drafts(model: Llama, asked: dict[str, Any]) -> None:
    params = GenerationParams(
        **{"max_tokens": 30, "temperature": 0.5, "seed": 1, "speculate": "auto", **asked}
    )
    found = decode(drafting_engine(model), [([7, 8] * 10, params)])
    assert found.drafted == 0


def test_an_interrupted_step_is_repeated_with_the_same_result(model: Llama) -> None:
    params = GenerationParams(max_tokens=40, temperature=0, speculate="auto")
    jobs: list[Job] = [([7, 8, 9] * 6, params), ([1, 2] * 9, params.replace(temperature=0.7, seed=2))]
    expected = outcomes(decode(drafting_engine(model), jobs).events)
    engine = drafting_engine(model)
    for prompt, asked in jobs:
        engine.add(prompt, asked)
    events = []
    carry_out = engine._carry_out
    steps = 0

    def failing(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        found = carry_out(*arguments)
        if steps % 3 == 0:
            raise KeyboardInterrupt
        return found

    engine._carry_out = failing  # type: ignore[method-assign]
    while engine.has_work():
        try:
            events += engine.step()
        except KeyboardInterrupt:
            engine.check_integrity()
    assert outcomes(events) == expected


def test_an_abort_forgets_the_stream(model: Llama) -> None:
    engine = drafting_engine(model)
    number = engine.add([7, 8] * 5, GenerationParams(max_tokens=40, speculate="auto"))
    for _ in range(5):
        engine.step()
    assert engine._speculator is not None
    assert len(engine._speculator._drafter) == 1
    engine.abort(number)
    assert not len(engine._speculator._drafter)


def test_auto_combines_with_every_strategy() -> None:
    for strategy in (BeamSearch(2), ContrastiveSearch(2)):
        assert GenerationParams(speculate="auto", strategy=strategy, temperature=0).speculate == Auto()


def test_auto_is_a_name_and_anything_else_is_refused() -> None:
    assert GenerationParams(speculate="auto").speculate == Auto()
    with pytest.raises(Exception, match='must be one of PromptLookup, DraftModel, "auto"'):
        GenerationParams(speculate="automatic")  # type: ignore[arg-type]
