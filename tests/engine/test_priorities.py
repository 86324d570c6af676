"""Checks that requests of lower priority run first, and that priorities change no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodery import LLM
from decodery.decoding.request.params import GenerationParams
from decodery.engine.engine import Engine
from decodery.errors import ParameterError
from decodery.models.decoders.llama import Llama
from tests.cli.conftest import write_model
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

SHORT = GenerationParams(max_tokens=3, seed=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


def order_of_ends(engine: Engine) -> list[int]:
    """Returns the requests in the order in which they end."""
    ended = []
    while engine.has_work():
        ended += [event.request for event in engine.step() if event.finish]
        engine.check_integrity()
    return ended


def test_lower_priorities_run_first_and_equal_ones_as_they_came(model: Llama) -> None:
    engine = make_engine(model, max_sequences=1)
    priorities = [0, 2, 1, -1, 2, 1, 0]
    ids = [engine.add([i + 1] * 20, SHORT, priority=priority) for i, priority in enumerate(priorities)]
    assert order_of_ends(engine) == sorted(ids, key=lambda i: priorities[ids.index(i)])


def test_a_running_request_is_not_stopped_for_one_of_lower_priority(model: Llama) -> None:
    engine = make_engine(model, max_sequences=1)
    first = engine.add([1] * 20, SHORT, priority=5)
    engine.step()
    second = engine.add([2] * 20, SHORT, priority=0)
    assert order_of_ends(engine) == [first, second]
    assert engine.preemptions == 0


@pytest.mark.parametrize("priorities", [(5, 0), (0, 0), (0, 5)])
def test_the_request_of_the_highest_priority_that_came_last_is_preempted(
    model: Llama, priorities: tuple[int, int]
) -> None:
    engine = make_engine(model, pages=20, token_budget=64)
    params = GenerationParams(max_tokens=100, ignore_eos=True, seed=1)
    ids = [engine.add([i + 1] * 64, params, priority=p) for i, p in enumerate(priorities)]
    kept, preempted = sorted(ids, key=lambda i: priorities[ids.index(i)])
    paused = False
    while engine.has_work():
        for event in engine.step():
            if event.finish:
                ids.remove(event.request)
        engine.check_integrity()
        assert kept not in ids or engine.progress(kept).running
        paused |= preempted in ids and not engine.progress(preempted).running
    assert paused
    assert engine.preemptions > 0


def test_a_prompt_of_lower_priority_takes_pages_from_those_that_decode(model: Llama) -> None:
    engine = make_engine(model, pages=12, token_budget=20)
    decoding = engine.add([1] * 16, GenerationParams(max_tokens=100, ignore_eos=True, seed=1), priority=1)
    for _ in range(30):
        engine.step()
    urgent = engine.add([2] * 120, GenerationParams(max_tokens=60, ignore_eos=True, seed=1))
    assert order_of_ends(engine) == [urgent, decoding]
    assert engine.preemptions > 0


@pytest.mark.parametrize("priority", [1.5, True, None, "high"])
def test_a_priority_that_is_no_whole_number_is_refused(model: Llama, priority: Any) -> None:
    engine = make_engine(model)
    with pytest.raises(ParameterError, match="priority must be a whole number"):
        engine.add([1], SHORT, priority=priority)
    assert not engine.has_work()


@built
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.integers(1, 3), st.integers(-1, 1), st.integers(0, 3)),
        min_size=2,
        max_size=6,
    ),
    st.integers(0, 4),
    st.sampled_from([4, 16, 128]),
)
def test_priorities_change_no_text(
    model: Llama, history: list[tuple[int, int, int, int]], spare: int, budget: int
) -> None:
    jobs: list[Job] = [
        ([j % 7 for j in range(length)], GenerationParams(max_tokens=20, n=n, seed=i))
        for i, (length, n, _, _) in enumerate(history)
    ]
    fewest = max(make_engine(model).limits.pages_needed(len(p), params) for p, params in jobs)
    engine = make_engine(model, pages=fewest + spare, token_budget=budget)
    tokens: dict[tuple[int, int], list[int]] = {}
    for i, (job, (_, n, priority, wait)) in enumerate(zip(jobs, history, strict=True)):
        request = engine.add(*job, priority=priority)
        tokens |= {(request, stream): [] for stream in range(n)}
        for _ in range(wait if i < len(jobs) - 1 else 10_000):
            for event in engine.step() if engine.has_work() else ():
                assert event.stream is not None
                tokens[event.request, event.stream] += event.tokens
            engine.check_integrity()
    assert not engine.has_work()
    alone = [run(make_engine(model), [job])[0] for job in jobs]
    assert list(tokens.values()) == [stream for streams in alone for stream in streams]


def test_generate_and_stream_take_a_priority(tmp_path: Path) -> None:
    llm = LLM(write_model(tmp_path))
    expected = llm.generate("ab", SHORT)[0].completions[0].text
    assert llm.generate(["ab", "cd"], SHORT, priority=3)[0].completions[0].text == expected
    assert "".join(event.text for event in llm.stream("ab", SHORT, priority=-3)) == expected
    with pytest.raises(ParameterError, match="priority"):
        llm.stream("ab", SHORT, priority=0.5)  # type: ignore[arg-type]
