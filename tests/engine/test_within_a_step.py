"""Checks callbacks that call the engine, dropped requests and interrupts, all within a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch
from decodery.engine.engine import Engine
from decodery.errors import RequestError
from decodery.kernels.contract import Kernels
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama
from decodery.models.load import load_for_inference
from decodery.weights.formats.opening import open_checkpoint
from tests.engine.runs import make_engine, outcomes, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_llama_folder, tiny_model

PROMPT = list(range(1, 20))
PLAIN = GenerationParams(max_tokens=16, seed=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model()


def calling(act: Callable[[], None], step: int) -> GenerationParams:
    """Returns parameters with a processor that calls `act` once, after so many generated tokens."""

    def processor(ids: list[int], logits: Any) -> Any:
        if len(ids) == len(PROMPT) + step:
            act()
        return logits

    return PLAIN.replace(logits_processors=(processor,))


def events_of(engine: Engine) -> list[Event]:
    found = []
    while engine.has_work():
        found += engine.step()
        engine.check_integrity()
    return found


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Sets the number of torch's threads to two, also for threads that start later."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_elsewhere() -> int:
    """Returns the number of torch's threads for a thread that starts now."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def loaded(folder: Path, kernels: Kernels) -> Llama:
    with open_checkpoint(folder) as checkpoint:
        return load_for_inference(checkpoint, dtype=torch.float32, kernels=kernels)


@built
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("fails", [False, True])
def test_within_a_step_of_compiled_kernels_torch_keeps_to_the_calling_thread(
    tmp_path: Path, fails: bool
) -> None:
    threads: list[tuple[int, int]] = []

    def look() -> None:
        threads.append((torch.get_num_threads(), threads_elsewhere()))
        if fails:
            raise KeyboardInterrupt

    folder = tiny_llama_folder(tmp_path)
    backends: list[tuple[Kernels, int]] = [(NativeKernels(), 1), (torch_kernels, 2)]
    for kernels, expected in backends:
        engine = make_engine(loaded(folder, kernels))
        engine.add(PROMPT, calling(look, 3))
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            events_of(engine)
        assert threads.pop() == (expected, 2)
        assert torch.get_num_threads() == 2


@built
@pytest.mark.parametrize("second", ["same", "other"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_a_step_has_exclusive_threads_unless_a_second_model_has_other_kernels(
    tmp_path: Path, native: bool, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []
    monkeypatch.setattr(
        NativeKernels, "exclusive_threads", lambda self, threads: nullcontext(entered.append("native"))
    )
    monkeypatch.setattr(
        torch_kernels, "exclusive_threads", lambda threads: nullcontext(entered.append("torch"))
    )
    folder = tiny_llama_folder(tmp_path)
    model = loaded(folder, NativeKernels() if native else torch_kernels)
    draft_model = loaded(folder, NativeKernels() if native == (second == "same") else torch_kernels)
    engine = make_engine(model)
    engine.add(PROMPT, PLAIN.replace(speculate=DraftModel("other")), draft_model=draft_model)
    events_of(engine)
    assert set(entered) == ({"native" if native else "torch"} if second == "same" else set())


@built
def test_on_the_torch_backend_the_compiled_kernels_keep_to_the_calling_thread_within_a_step() -> None:
    during: list[int] = []
    engine = make_engine(tiny_model())
    engine.add(PROMPT, calling(lambda: during.append(library.own_threads()), 3))
    events_of(engine)
    assert during == [1]
    assert library.own_threads() == 0


@built
@pytest.mark.parametrize("strategy", [None, BeamSearch(3), ContrastiveSearch(3)], ids=str)
@pytest.mark.parametrize("step", [0, 3])
def test_a_request_dropped_within_a_step_is_gone_after_it_and_disturbs_nobody(
    model: Llama, strategy: Any, step: int
) -> None:
    expected = run(make_engine(model), [(PROMPT, PLAIN)])[0][0]
    engine = make_engine(model)
    asked = PLAIN if strategy is None else PLAIN.replace(strategy=strategy)
    other = engine.add(list(range(30)), asked)
    kept = engine.add(PROMPT, calling(lambda: engine.abort(other), step))
    events: list[Event] = []
    while engine.has_work():
        found = engine.step()
        events += found
        engine.check_integrity()
        if other not in engine._requests:
            assert not any(e.request == other for e in found), "a dropped request has an event"
    assert [t for e in events if e.request == kept for t in e.tokens] == expected
    assert engine._scheduler.pages.available == engine.limits.pages


@built
def test_a_step_within_a_step_fails_the_request_that_asks_for_it_alone(model: Llama) -> None:
    expected = run(make_engine(model), [(PROMPT, PLAIN)])[0][0]
    engine = make_engine(model)

    def again() -> None:
        with pytest.raises(RequestError, match="in the middle of a step"):
            engine.step()
        engine.step()

    asking = engine.add(PROMPT, calling(again, 2))
    plain = engine.add(PROMPT, PLAIN)
    events = events_of(engine)
    assert [t for e in events if e.request == plain for t in e.tokens] == expected
    (error,) = (e.error for e in events if e.request == asking and e.finish)
    assert error is not None
    assert "in the middle of a step" in error


class Interrupt:
    """Raises KeyboardInterrupt before the line with this number among those that the engine runs."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.rpartition("/")[0].endswith("decodery/engine"):
            return None
        # The recovery is not interrupted a second time. After an interrupt in the last lines of `step` the
        # caller cannot know whether the step was completed.
        if frame.f_code.co_name in ("_start_over", "start_over", "clear", "step", "step_into"):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def interrupted(act: Callable[[], object], line: int) -> bool:
    """Calls `act` with an interrupt at a line. True if the interrupt came before the end of `act`."""
    before = sys.gettrace()
    sys.settrace(Interrupt(line))
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def begun(model: Llama) -> tuple[Engine, list[int]]:
    """Returns an engine with unfinished requests of each kind (forks, companions, drafts), and their ids."""
    engine = make_engine(model, pages=60)
    kinds = [
        PLAIN.replace(n=3),
        PLAIN.replace(strategy=BeamSearch(3)),
        PLAIN.replace(strategy=ContrastiveSearch(2)),
        PLAIN.replace(guidance_scale=1.5),
        PLAIN.replace(speculate=PromptLookup()),
    ]
    ids = [engine.add(PROMPT, params) for params in kinds]
    ids.append(engine.add(PROMPT, PLAIN.replace(speculate=DraftModel("itself")), draft_model=model))
    return engine, ids


@built
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_interrupt_anywhere_leaves_pages_and_requests_consistent(model: Llama, steps: int) -> None:
    expected = run(make_engine(model), [(PROMPT, PLAIN)])[0][0]
    line, before_the_end = 3 * steps, True
    while before_the_end:
        engine, ids = begun(model)
        for _ in range(steps):
            engine.step()
        before_the_end = interrupted(engine.step, line)
        engine.check_integrity()
        interrupted(lambda engine=engine, ids=ids: [engine.abort(i) for i in ids], line % 150)  # type: ignore[misc]
        engine.check_integrity()
        for request in ids:
            engine.abort(request)
        assert engine._scheduler.pages.available == engine.limits.pages
        line += 149
    assert line > 149 * 5
    engine.add(PROMPT, PLAIN)
    assert [t for e in events_of(engine) for t in e.tokens] == expected


@built
@pytest.mark.parametrize("steps", [1, 3])
def test_events_that_an_interrupt_lost_come_with_the_next_step(model: Llama, steps: int) -> None:
    engine, _ = begun(model)
    expected = outcomes(events_of(engine))
    line, before_the_end = 0, True
    while before_the_end:
        engine, _ = begun(model)
        events = [event for _ in range(steps) for event in engine.step()]
        before_the_end = interrupted(lambda engine=engine, events=events: events.extend(engine.step()), line)  # type: ignore[misc]
        engine.check_integrity()
        assert outcomes(events + events_of(engine)) == expected
        line += 233
    assert line > 233 * 5


@built
def test_a_request_whose_adding_was_interrupted_disturbs_no_later_one(model: Llama) -> None:
    short = PLAIN.replace(max_tokens=2)
    expected = run(make_engine(model), [(PROMPT, short)])[0][0]
    engine = make_engine(model)
    line, before_the_end = 0, True
    while before_the_end:
        before_the_end = interrupted(lambda: engine.add(PROMPT, short.replace(seed=2)), line)
        engine.check_integrity()
        request = engine.add(PROMPT, short)
        events = events_of(engine)
        assert [t for e in events if e.request == request for t in e.tokens] == expected
        line += 1
