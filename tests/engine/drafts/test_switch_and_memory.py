"""Checks what requests learn of each other when the engine drafts, what is kept, and what is reported."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.engine.drafts.speculator import MOST_SALTS
from decodery.engine.engine import Engine
from decodery.kernels.native.drafter import SOURCES
from decodery.models.decoders.llama import Llama
from tests.engine.drafts.test_speculator import drafting_engine
from tests.engine.runs import Job, make_engine
from tests.engine.test_speculation import VOCAB, decode
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

pytestmark = built


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


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


class History:
    """Holds the pairs of neighbours that each party has seen, and checks that its drafts are among them."""

    def __init__(self) -> None:
        self._pairs: dict[object, set[tuple[int, int]]] = {}
        self._last: dict[tuple[int, int | None], int] = {}
        self.sources: Counter[str] = Counter()

    def see(self, party: object, stream: tuple[int, int | None], tokens: Sequence[int]) -> None:
        """Adds tokens that a party's stream goes on with."""
        known = [self._last[stream]] if stream in self._last else []
        self._pairs.setdefault(party, set()).update(pairwise([*known, *tokens]))
        if tokens:
            self._last[stream] = tokens[-1]

    def check(self, party: object, event: Event) -> None:
        """Raises `AssertionError` unless the party has seen each draft behind the token before it."""
        drafted = pairwise([self._last[event.request, event.stream], *event.drafts])
        assert set(drafted) <= self._pairs[party]
        self.sources.update(event.draft_sources)


def run_mixed(engine: Engine, salts: Sequence[bytes], *, apart: bool) -> History:
    """Runs requests of several salts at once and checks their drafts; `apart`, each stream is a party."""
    chance = random.Random(5)
    history = History()
    salt_of: dict[int, bytes] = {}
    waiting = [(job, salt) for salt in salts for job in some_jobs(len(salt), 30)]
    chance.shuffle(waiting)
    while waiting or engine.has_work():
        if waiting and len(engine._requests) < 5:
            (prompt, params), salt = waiting.pop()
            number = engine.add(prompt, params, salt=salt)
            salt_of[number] = salt
            for stream in range(params.streams):
                history.see((number, stream) if apart else salt, (number, stream), prompt)
        events = engine.step()
        for event in events:
            history.check(_party(event, salt_of, apart), event)
        for event in events:
            history.see(_party(event, salt_of, apart), (event.request, event.stream), event.tokens)
    return history


def _party(event: Event, salt_of: Mapping[int, bytes], apart: bool) -> object:
    return (event.request, event.stream) if apart else salt_of[event.request]


def test_drafts_are_of_what_requests_of_the_same_salt_have_seen(model: Llama) -> None:
    history = run_mixed(drafting_engine(model), (b"", b"a", b"bb"), apart=False)
    assert min(history.sources[source] for source in SOURCES) > 20
    # Each request alone has not seen all of it.
    with pytest.raises(AssertionError):
        run_mixed(drafting_engine(model), (b"", b"a", b"bb"), apart=True)


def test_without_remembered_texts_drafts_are_of_what_the_stream_has_seen(model: Llama) -> None:
    engine = drafting_engine(model, remember_texts=False)
    history = run_mixed(engine, (b"", b"a", b"bb"), apart=True)
    assert history.sources["earlier texts"] == 0
    assert min(history.sources["text"], history.sources["successors"]) > 20


def foreign_drafts(engine: Engine, job: Job, salt: bytes = b"") -> int:
    """Returns how many drafts of a request cannot come from its own tokens."""
    known = list(job[0])
    followed: set[tuple[int, int]] = set()
    foreign = 0
    for event in decode(engine, [job], salt=salt).events:
        before = known[-1]
        for draft, source in zip(event.drafts, event.draft_sources, strict=True):
            foreign += source == "earlier texts" or (
                source == "successors" and (before, draft) not in followed
            )
            before = draft
        for token in event.tokens:
            followed.add((known[-1], token))
            known.append(token)
    return foreign


def test_a_salt_that_is_new_drafts_nothing_that_ran_under_others(model: Llama) -> None:
    engine = drafting_engine(model)
    for number, job in enumerate(some_jobs(1)):
        for other in (b"", b"other"):
            decode(engine, [job, *some_jobs(1, 3)], salt=other)
        assert foreign_drafts(engine, job, b"own %d" % number) == 0
    # Under their salt the same requests do draft it.
    assert sum(foreign_drafts(engine, job, b"other") for job in some_jobs(1)) > 20


def test_without_remembered_texts_requests_draft_nothing_of_each_other(model: Llama) -> None:
    engine = drafting_engine(model, remember_texts=False)
    assert [foreign_drafts(engine, job) for job in some_jobs(2) * 2] == [0] * 24
    assert engine.statistics().drafted > 100
    params = GenerationParams(max_tokens=30, temperature=0)
    engine.add([5, 6, 7], params)
    engine.add([5, 6, 7], params)
    while engine.has_work():
        for event in engine.step():
            assert "earlier texts" not in event.draft_sources


def test_the_salts_that_were_used_last_are_kept(model: Llama) -> None:
    engine = drafting_engine(model)
    prompt = [random.Random(4).randrange(VOCAB) for _ in range(30)]
    job: Job = (prompt, GenerationParams(max_tokens=40, temperature=1.5, seed=2))
    for number in range(MOST_SALTS):
        decode(engine, [job], salt=b"%d" % number)
    assert foreign_drafts(engine, job, b"0") > 10
    decode(engine, [job], salt=b"one more")
    # One that runs is in use, however many begin meanwhile.
    number = engine.add(prompt[:5], job[1].replace(max_tokens=900, ignore_eos=True), salt=b"0")
    for other in range(2 * MOST_SALTS):
        short = engine.add(prompt[:9], job[1].replace(max_tokens=3), salt=b"short %d" % other)
        while short in engine._requests:
            engine.step()
    assert number in engine._requests
    engine.abort(number)
    assert foreign_drafts(engine, job, b"0") > 10
    decode(engine, [job], salt=b"one more")
    assert foreign_drafts(engine, job, b"1") == 0
    assert foreign_drafts(engine, job, b"0") > 10


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
    assert not len(speculator._drafter)
    assert not speculator._streams
    events = decode(engine, [(prompt, params)]).events
    assert not any("earlier texts" in event.draft_sources for event in events)
    engine.check_integrity()


def test_a_request_that_fails_or_ends_late_leaves_no_stream(model: Llama) -> None:
    engine = drafting_engine(model)
    failing = GenerationParams(max_tokens=30, temperature=0)
    number = engine.add([7, 8] * 5, failing, timeout=1000.0)
    for _ in range(4):
        engine.step()
    assert engine._speculator is not None
    assert len(engine._speculator._drafter) == 1
    engine._requests[number].timeout = 1e-9
    (event,) = engine.step()
    assert event.finish == "error"
    assert not len(engine._speculator._drafter)
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
    assert not engine._speculator._salts
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
