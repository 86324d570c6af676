"""Checks that requests that leave, aborted or too late, free their pages and leave their prompt cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch
from decodery.engine.batch import Batch
from decodery.engine.captured_steps import States
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits, page_bytes
from decodery.errors import ParameterError
from decodery.models.decoders.llama import Llama
from tests.engine.runs import outcomes, run
from tests.models.tiny import default_model

PROMPT = [i * 7 % 97 for i in range(100)]
PLAIN = GenerationParams(max_tokens=40, ignore_eos=True, seed=1)
GREEDY = PLAIN.replace(temperature=0, seed=None)
KINDS = {
    "plain": PLAIN,
    "streams": PLAIN.replace(n=3),
    "beams": GREEDY.replace(strategy=BeamSearch(num_beams=3)),
    "forks": GREEDY.replace(strategy=ContrastiveSearch(top_k=3)),
    "guided": PLAIN.replace(guidance_scale=2.0, negative_prompt=[3] * 40),
    "scored": PLAIN.replace(prompt_logprobs=0),
}


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def engine_of(model: Llama, clock: Callable[[], float] = time.monotonic, **limits: Any) -> Engine:
    sizes = Limits(400, page_bytes(model, None), model.context_length, token_budget=48, **limits)
    return Engine(model, sizes, clock=clock)


def rest_of(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    return events


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("leaves", ["aborted", "late"])
def test_a_request_that_leaves_frees_its_pages_within_a_step_and_its_prompt_still_hits(
    model: Llama, kind: str, steps: int, leaves: str
) -> None:
    clock = Clock()
    engine = engine_of(model, clock)
    other = ([5] * 10, PLAIN.replace(max_tokens=60))
    (expected,) = run(engine_of(model), [other])
    kept = engine.add(*other)
    events = engine.step()
    before = engine.statistics().pages_used
    left = engine.add(PROMPT, KINDS[kind], timeout=5)
    for _ in range(steps):
        events += engine.step()
    computed = engine.progress(left).computed
    assert (computed == 0) is (steps == 0)
    if leaves == "aborted":
        engine.abort(left)
    clock.now = 5.0 if leaves == "late" else 0.0
    events += engine.step()
    engine.check_integrity()
    assert engine.statistics().pages_used <= before + 1
    assert engine.statistics().running + engine.statistics().waiting == 1
    again = engine.add(PROMPT, PLAIN)
    events += rest_of(engine)
    assert engine.statistics().pages_used == 0
    assert {e.cached_tokens for e in events if e.request == again} == {min(computed, 99) // 16 * 16}
    assert [token for e in events if e.request == kept for token in e.tokens] == expected[0]
    ended = [(e.finish, e.error) for e in events if e.request == left and e.finish]
    late = [("error", "the request took longer than its timeout of 5 seconds")]
    assert ended == (late * KINDS[kind].streams if leaves == "late" else [])


def test_a_request_that_waits_ends_at_its_timeout(model: Llama) -> None:
    clock = Clock()
    engine = engine_of(model, clock, max_sequences=1)
    engine.add(PROMPT, PLAIN)
    waiting = engine.add(PROMPT, PLAIN.replace(n=1), timeout=2.5)
    clock.now = 2.4
    assert not [e for e in engine.step() if e.request == waiting]
    clock.now = 2.6
    (event,) = [e for e in engine.step() if e.request == waiting]
    assert (event.finish, event.stream) == ("error", 0)
    assert event.times is not None
    assert event.times.started is None
    assert waiting not in [e.request for e in rest_of(engine)]


def test_only_the_streams_that_go_on_get_the_error_of_a_timeout(model: Llama) -> None:
    params = PLAIN.replace(n=3, ignore_eos=False, stop_token_ids=tuple(range(0, 97, 4)), max_tokens=200)
    alone = rest_of_added(engine_of(model), params)
    ends = sorted(len(stream) for stream in alone.values())
    assert ends[0] < ends[-1], "the streams end together"
    clock = Clock()
    engine = engine_of(model, clock)
    engine.add(PROMPT, params, timeout=1)
    events: list[Event] = []
    while not any(e.finish for e in events):
        events += engine.step()
    ended = {e.stream for e in events if e.finish}
    clock.now = 1.0
    late = engine.step()
    assert {e.stream for e in late} == {0, 1, 2} - ended
    assert not engine.has_work()


def rest_of_added(engine: Engine, params: GenerationParams) -> dict[tuple[int, int | None], list[object]]:
    engine.add(PROMPT, params)
    return outcomes(rest_of(engine))


def test_an_interrupt_of_the_step_that_ends_late_requests_loses_no_event(model: Llama) -> None:
    clock = Clock()
    engine = engine_of(model, clock)
    engine.add([5] * 10, PLAIN)
    late = engine.add(PROMPT, PLAIN.replace(n=2), timeout=1)
    for _ in range(4):
        engine.step()
    hidden = engine._runner.hidden

    def interrupted(batch: Batch, layers: Iterable[int] = ()) -> States:
        raise KeyboardInterrupt

    clock.now = 1.0
    engine._runner.hidden = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine.check_integrity()
    engine._runner.hidden = hidden  # type: ignore[method-assign]
    assert [(e.stream, e.finish) for e in rest_of(engine) if e.request == late] == [
        (0, "error"),
        (1, "error"),
    ]


def test_a_request_that_ends_in_time_has_no_error(model: Llama) -> None:
    clock = Clock()
    engine = engine_of(model, clock)
    engine.add(PROMPT, PLAIN, timeout=0.5)
    events = rest_of(engine)
    assert [e.finish for e in events if e.finish] == ["length"]
    clock.now = 2.0
    assert engine.step() == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_a_timeout_that_is_no_positive_number_is_refused(model: Llama, timeout: Any) -> None:
    engine = engine_of(model)
    with pytest.raises(ParameterError, match="timeout"):
        engine.add(PROMPT, PLAIN, timeout=timeout)
    assert not engine.has_work()
