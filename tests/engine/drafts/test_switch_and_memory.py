"""Checks what requests learn of each other when the engine drafts, what is kept, and what is reported."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.engine.drafts.memory import MOST_SUCCESSORS, MOST_TOKENS
from decodery.engine.drafts.speculator import MOST_SALTS, Speculator
from decodery.engine.engine import Engine
from decodery.models.decoders.llama import Llama
from tests.decoding.rows import make_row
from tests.engine.drafts.test_speculator import drafting_engine
from tests.engine.runs import Job, make_engine
from tests.engine.test_speculation import VOCAB, decode
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

pytestmark = built


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


def observed_engine(model: Llama, **limits: Any) -> Engine:
    """Returns an engine whose drafts follow from what it remembers alone: it counts no failures."""
    engine = drafting_engine(model, **limits)
    engine._speculator._confidence.learn = lambda place, right: None  # type: ignore
    return engine


def some_jobs(seed: int, count: int = 12) -> list[Job]:
    """Returns requests that repeat each other's prompts and beginnings."""
    chance = random.Random(seed)
    prompts = [[chance.randrange(VOCAB) for _ in range(chance.randrange(2, 30))] for _ in range(3)]
    options: tuple[dict[str, Any], ...] = (
        {"temperature": 0},
        {"temperature": 1.5, "top_k": 40},
        {"temperature": 0.7, "repetition_penalty": 1.2},
    )
    return [
        (
            chance.choice(prompts),
            GenerationParams(
                max_tokens=chance.randrange(1, 40), seed=chance.randrange(2), **chance.choice(options)
            ),
        )
        for _ in range(count)
    ]


def drafts_of(engine: Engine, jobs: list[Job], salt: bytes) -> list[Any]:
    """Returns what each step of each request drafted and from where, one request after the other."""
    return [
        [(e.tokens, e.drafts, e.draft_sources) for e in decode(engine, [job], salt=salt).events]
        for job in jobs
    ]


def test_what_runs_under_other_salts_changes_no_draft(model: Llama) -> None:
    jobs = some_jobs(1)
    expected = drafts_of(observed_engine(model), jobs, b"own")
    assert {s for job in expected for *_, sources in job for s in sources} > {"earlier texts", "successors"}
    engine = observed_engine(model)
    found = []
    for number, job in enumerate(jobs):
        for salt in (b"", b"other %d" % (number % 3)):
            drafts_of(engine, [job, *some_jobs(1, 3)], salt)
        found += drafts_of(engine, [job], b"own")
    assert found == expected


def test_without_remembered_texts_what_ran_before_changes_no_draft(model: Llama) -> None:
    jobs = some_jobs(2)
    expected = [drafts_of(observed_engine(model, remember_texts=False), [job], b"")[0] for job in jobs]
    assert any(drafts for job in expected for _, drafts, _ in job)
    engine = observed_engine(model, remember_texts=False)
    assert drafts_of(engine, jobs, b"") == expected
    # With remembered texts it does change them.
    assert drafts_of(observed_engine(model), jobs, b"") != expected


def test_without_remembered_texts_requests_that_run_together_share_nothing(model: Llama) -> None:
    engine = observed_engine(model, remember_texts=False)
    params = GenerationParams(max_tokens=30, temperature=0)
    engine.add([5, 6, 7], params)
    engine.add([5, 6, 7], params)
    while engine.has_work():
        engine.step()
        streams = list(engine._speculator._streams.values())  # type: ignore[union-attr]
        assert len({id(stream.memory) for stream in streams}) == len(streams)
        assert not engine._speculator._memories  # type: ignore[union-attr]


def size_of(speculator: Speculator) -> tuple[int, int, int]:
    """Returns the most tokens and successors that one salt has, and the number of salts."""
    memories = speculator._memories.values()
    tokens = max(len(m._older) + len(m._newer) for m in memories)
    return tokens, max(len(m._successors) for m in memories), len(memories)


def test_memory_is_bounded_in_tokens_successors_and_salts() -> None:
    speculator = Speculator()
    row = make_row([1, 2], [3])
    most = 0
    for number in range(3 * MOST_SALTS):
        memory = speculator._memory(replace(row, salt=b"%d" % number))
        for start in range(0, 3 * MOST_TOKENS if number % 8 == 0 else 100, 997):
            memory.add_text(array("q", range(start, start + 1 + start % 1009)))
            most = max(most, size_of(speculator)[0])
            # A border stands after the last text.
            assert most <= MOST_TOKENS + 1
        for token in range(MOST_SUCCESSORS if number % 16 == 0 else 100):
            memory.learn(token, token + 1, token + 2)
        assert size_of(speculator)[1] <= MOST_SUCCESSORS
    assert most > MOST_TOKENS // 2
    assert size_of(speculator)[2] == MOST_SALTS
    # The salts that were used last are kept.
    assert set(speculator._memories) == {b"%d" % n for n in range(2 * MOST_SALTS, 3 * MOST_SALTS)}


@pytest.mark.parametrize("after", range(1, 12))
def test_of_an_aborted_request_no_text_and_no_stream_is_left(model: Llama, after: int) -> None:
    prompt = [random.Random(4).randrange(VOCAB) for _ in range(30)]
    params = GenerationParams(max_tokens=40, temperature=1.5, seed=2, n=1 + after % 2)
    engine = drafting_engine(model)
    number = engine.add(prompt, params)
    for _ in range(after):
        engine.step()
    engine.abort(number)
    speculator = engine._speculator
    assert speculator is not None
    assert not speculator._streams
    assert all(len(m._older) + len(m._newer) == 0 for m in speculator._memories.values())
    events = decode(engine, [(prompt, params)]).events
    assert not any("earlier texts" in event.draft_sources for event in events)
    engine.check_integrity()


def test_a_request_that_fails_or_ends_late_leaves_no_stream(model: Llama) -> None:
    engine = drafting_engine(model)
    failing = GenerationParams(max_tokens=30, temperature=0)
    number = engine.add([7, 8] * 5, failing, timeout=0.2)
    for _ in range(4):
        engine.step()
    assert engine._speculator is not None
    assert engine._speculator._streams
    engine._requests[number].timeout = 1e-9
    (event,) = engine.step()
    assert event.finish == "error"
    assert not engine._speculator._streams


def test_each_accepted_draft_has_one_source_and_the_counters_are_their_sums(model: Llama) -> None:
    events: list[Event] = []
    # Small steps cut drafts off.
    engine = drafting_engine(model, token_budget=6)
    jobs = some_jobs(3, 20) * 2
    for start in range(0, len(jobs), 2):
        events += decode(engine, jobs[start : start + 2]).events
    drafted, accepted = Counter[str](), Counter[str]()
    for event in events:
        assert len(event.draft_sources) == len(event.drafts)
        assert event.drafts[: event.accepted] == event.tokens[: event.accepted]
        drafted.update(event.draft_sources)
        accepted.update(event.draft_sources[: event.accepted])
    seen = engine.statistics()
    assert {source: counts[0] for source, counts in seen.by_source.items()} == dict(drafted)
    assert {source: counts[1] for source, counts in seen.by_source.items() if counts[1]} == dict(accepted)
    assert seen.accepted == accepted.total() > 50
    assert seen.drafted == drafted.total()


def test_a_request_without_speculation_is_not_remembered_and_gets_no_drafts(model: Llama) -> None:
    engine = drafting_engine(model)
    params = GenerationParams(max_tokens=40, temperature=0)
    plain = params.replace(speculate=None)
    first = decode(engine, [([7, 8] * 8, plain)])
    assert engine._speculator is not None
    assert not engine._speculator._memories
    again = decode(engine, [([7, 8] * 8, params)])
    assert not any("earlier texts" in e.draft_sources for e in again.events)
    assert decode(engine, [([7, 8] * 8, plain)]).drafted == 0
    assert first.outcomes == again.outcomes


def test_engines_on_torch_decode_plainly_where_nothing_was_asked() -> None:
    model = tiny_model()
    job: Job = ([7, 8] * 8, GenerationParams(max_tokens=12, temperature=0))
    assert decode(make_engine(model), [job]).drafted == 0
    looking_up = job[1].replace(speculate=PromptLookup())
    assert decode(make_engine(model), [(job[0], looking_up)]).drafted > 0
