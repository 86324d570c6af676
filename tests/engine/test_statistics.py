"""Checks what an engine tells of its requests and of itself: cached tokens, progress, times and counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from decodery import LLM
from decodery.decoding.event import Event, PromptProgress, Times
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits, page_bytes
from decodery.engine.statistics import Counters
from decodery.models.decoders.llama import Llama
from tests.cli.conftest import write_model
from tests.engine.runs import make_engine, run
from tests.models.tiny import default_model

PROMPT = [i % 90 for i in range(100)]
SHORT = GenerationParams(max_tokens=4, seed=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


def ended(engine: Engine) -> list[Event]:
    found: list[Event] = []
    while engine.has_work():
        found += engine.step()
        engine.check_integrity()
    return found


def ticking() -> Callable[[], float]:
    """Returns a clock that goes on by one second whenever it is read."""
    ticks: Iterator[float] = iter(map(float, range(10**9)))
    return lambda: next(ticks)


class Clock:
    """Returns the time that was set last."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def clocked(model: Llama, clock: Callable[[], float]) -> Engine:
    limits = Limits(400, page_bytes(model, None), model.context_length, token_budget=32)
    return Engine(model, limits, clock=clock)


@pytest.mark.parametrize(
    ("params", "cached"),
    [
        (SHORT, 96),
        (SHORT.replace(n=3), 96),
        (SHORT.replace(strategy=BeamSearch(num_beams=3), temperature=0, seed=None), 96),
        (SHORT.replace(guidance_scale=2.0, negative_prompt=[5] * 40), 96),
        (SHORT.replace(prompt_logprobs=0), 0),
    ],
)
def test_every_event_tells_how_many_prompt_tokens_were_cached(
    model: Llama, params: GenerationParams, cached: int
) -> None:
    engine = make_engine(model)
    engine.add(PROMPT, params)
    assert {e.cached_tokens for e in ended(engine)} == {0}
    engine.add(PROMPT, params)
    assert {e.cached_tokens for e in ended(engine)} == {cached}


@pytest.mark.parametrize(("length", "cached"), [(1, 0), (16, 0), (17, 16), (32, 16), (33, 32)])
def test_the_last_prompt_token_is_never_cached(model: Llama, length: int, cached: int) -> None:
    engine = make_engine(model)
    for expected in (0, cached):
        engine.add(PROMPT[:length], SHORT)
        assert {e.cached_tokens for e in ended(engine)} == {expected}


def test_a_preempted_request_tells_what_was_cached_when_it_first_ran(model: Llama) -> None:
    engine = make_engine(model, pages=22, token_budget=64)
    engine.add(list(range(50)) * 2, SHORT.replace(max_tokens=40))
    second = engine.add(list(range(40)) * 2, SHORT.replace(max_tokens=40, n=4))
    events = ended(engine)
    # The prompts have their first 32 tokens in common.
    assert engine.preemptions > 0
    assert {e.cached_tokens for e in events if e.request == second} == {32}


def test_a_request_that_fails_tells_its_cached_tokens_too(model: Llama) -> None:
    engine = make_engine(model)
    run(engine, [(PROMPT, SHORT)])
    engine.add(PROMPT, GenerationParams(logit_bias={i: -float("inf") for i in range(97)}))
    (event,) = ended(engine)
    assert (event.finish, event.cached_tokens) == ("error", 96)
    assert event.times is not None


def test_an_output_tells_how_many_prompt_tokens_were_cached(tmp_path: Path) -> None:
    llm = LLM(write_model(tmp_path))
    prompt = "the quick " * 10
    first, second = (llm.generate(prompt, GenerationParams(max_tokens=2, temperature=0))[0] for _ in range(2))
    assert first.cached_tokens == 0
    assert second.cached_tokens == (len(second.prompt_token_ids) - 1) // 16 * 16 > 0


def test_progress_grows_by_the_chunks_of_a_prompt(model: Llama) -> None:
    engine = make_engine(model, token_budget=32, max_sequences=1)
    first = engine.add(PROMPT, SHORT)
    second = engine.add(PROMPT, SHORT)
    assert engine.progress(first) == PromptProgress(100, 0, 0, False)
    seen = []
    for _ in range(4):
        engine.step()
        seen.append(engine.progress(first))
    assert seen == [PromptProgress(100, 0, computed, True) for computed in (32, 64, 96, 100)]
    assert engine.progress(second) == PromptProgress(100, 0, 0, False)
    while engine.statistics().waiting:
        engine.step()
    assert engine.progress(second) == PromptProgress(100, 96, 100, True)
    ended(engine)
    with pytest.raises(KeyError):
        engine.progress(first)


def test_a_last_event_tells_when_its_request_was_queued_ran_had_its_prompt_and_ended(
    model: Llama,
) -> None:
    clock = Clock()
    engine = clocked(model, clock)
    engine.add(PROMPT, SHORT)
    found = []
    clock.now = 2.0
    while engine.has_work():
        clock.now += 1
        found += engine.step()
    assert [e.times for e in found] == [None, None, None, Times(0.0, 3.0, 6.0, 9.0)]


@pytest.mark.parametrize("strategy", [None, BeamSearch(num_beams=2)])
def test_a_text_of_one_token_tells_its_times_too(model: Llama, strategy: BeamSearch | None) -> None:
    engine = clocked(model, ticking())
    params = GenerationParams(max_tokens=1, temperature=0)
    engine.add([1, 2], params if strategy is None else params.replace(strategy=strategy))
    times = ended(engine)[-1].times
    assert times is not None
    assert times.started is not None
    assert times.prefilled is not None
    assert times.queued < times.started < times.prefilled == times.ended


def test_statistics_count_requests_pages_and_tokens(model: Llama) -> None:
    engine = make_engine(model, max_sequences=1)
    assert not any(value for name, value in fields_of(engine).items() if name != "pages")
    engine.add(PROMPT, SHORT.replace(speculate=None))
    engine.add(PROMPT, SHORT.replace(speculate=None))
    engine.step()
    seen = engine.statistics()
    assert (seen.running, seen.waiting, seen.pages, seen.pages_used) == (1, 1, 400, 7)
    ended(engine)
    seen = engine.statistics()
    assert (seen.running, seen.waiting, seen.pages_used, seen.preemptions) == (0, 0, 0, 0)
    assert (seen.prefix_queries, seen.prefix_hits, seen.prompt_tokens) == (200, 96, 104)
    assert (seen.generated_tokens, seen.drafted, seen.steps) == (8, 0, 8)


def test_prompts_that_are_not_searched_for_are_no_queries(model: Llama) -> None:
    engine = make_engine(model)
    run(engine, [(PROMPT, SHORT.replace(prompt_logprobs=0))])
    without = make_engine(model, prefix_cache=False)
    run(without, [(PROMPT, SHORT)])
    assert engine.statistics().prefix_queries == without.statistics().prefix_queries == 0


def test_a_preempted_request_is_one_query(model: Llama) -> None:
    engine = make_engine(model, pages=22, token_budget=64)
    jobs = [(list(range(w)) * 2, SHORT.replace(max_tokens=40, n=n)) for w, n in ((50, 1), (40, 4))]
    run(engine, jobs)
    seen = engine.statistics()
    assert seen.preemptions == engine.preemptions > 0
    assert (seen.prefix_queries, seen.prefix_hits) == (180, 32)


def test_statistics_count_drafts_and_those_in_the_text(model: Llama) -> None:
    engine = make_engine(model)
    engine.add([1, 2, 3, 4] * 8, GenerationParams(max_tokens=60, temperature=0, speculate=PromptLookup()))
    events = ended(engine)
    seen = engine.statistics()
    assert seen.drafted == sum(len(e.drafts) for e in events) > 0
    assert seen.accepted == sum(e.accepted for e in events)
    assert seen.generated_tokens == 60


def test_statistics_stay_as_they_were_when_they_were_asked_for() -> None:
    counters = Counters()
    engine = make_engine(default_model())
    before = counters.statistics(engine._scheduler, None)
    counters.by_source["text"] = (1, 1)
    assert before.by_source == {}
    assert counters.statistics(engine._scheduler, None).by_source == {"text": (1, 1)}


def test_a_step_in_progress_tells_since_when_and_the_longest_is_kept(model: Llama) -> None:
    clock, seen = Clock(10.0), []
    engine = clocked(model, clock)

    def slow(ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        seen.append(engine.statistics().step_since)
        clock.now += len(seen)
        return logits

    engine.add([1, 2], SHORT.replace(logits_processors=(slow,)))
    ended(engine)
    assert seen == [10.0, 11.0, 13.0, 16.0]
    assert engine.statistics().step_since is None
    assert engine.statistics().longest_step == 4.0


def fields_of(engine: Engine) -> dict[str, object]:
    statistics = engine.statistics()
    return {name: getattr(statistics, name) for name in statistics.__slots__}
