"""Checks that several threads may use one LLM at once, and that `threads` belongs to the model."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery import LLM, DecoderyError, DraftModel, GenerationParams, RequestError
from decodery.engine.engine import Engine
from decodery.kernels.native import library
from tests.cli.conftest import write_model
from tests.combinations import features
from tests.kernels.native.fixtures import built
from tests.mixed import random_request
from tests.test_bits import Result, result_of

GREEDY = GenerationParams(max_tokens=8, temperature=0, ignore_eos=True)
LIMIT = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Makes Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def opened(folder: str, **settings: Any) -> LLM:
    return LLM(folder, dtype="float32", **{"kv_memory": "16MB", **settings})


def in_threads(*jobs: Callable[[], object]) -> None:
    """Runs the jobs at once, each in a thread; raises the first exception of any, or if one hangs."""
    errors: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


class Mixed:
    """Holds random requests of every kind with their results alone, and uses a model at random."""

    def __init__(self, folder: str, count: int, backend: str) -> None:
        source = random.Random(11)
        listed = [f for f in features(folder) if not f.name.endswith("rejection")]
        turns = [f for f in listed if f.kind in ("strategy", "grammar", "speculate", "guidance", "mirostat")]
        llm = opened(folder, prefix_cache=False, backend=backend)
        self.jobs: list[tuple[str, GenerationParams, Result]] = []
        while len(self.jobs) < count:
            prompt, params = random_request(source, listed, turns[len(self.jobs) % len(turns)])
            try:
                (output,) = llm.generate(prompt, params)
            except DecoderyError:
                continue
            if output.error is None:
                self.jobs.append((prompt, params, result_of(output)))

    def use(self, llm: LLM, seed: int, rounds: int) -> None:
        """Generates, streams, drops streams, and leaves streams to the garbage collector."""
        source = random.Random(seed)
        for _ in range(rounds):
            chosen = source.sample(self.jobs, source.randint(1, 3))
            if source.random() < 0.4:
                prompt, params, _ = chosen[0]
                stream = llm.stream(prompt, params)
                for _ in range(source.randint(0, 3)):
                    next(stream, None)
                if source.random() < 0.5:
                    stream.close()
                elif source.random() < 0.5:
                    gc.collect()
                continue
            outputs = llm.generate([p for p, *_ in chosen], [q for _, q, _ in chosen], progress=False)
            for output, (prompt, params, alone) in zip(outputs, chosen, strict=True):
                assert result_of(output) == alone, (prompt, params)


@built
@pytest.mark.parametrize("pages", [pytest.param(None, marks=pytest.mark.slow), 24])
def test_eight_threads_get_the_bits_that_each_request_has_alone(folder: str, pages: int | None) -> None:
    mixed = Mixed(folder, 32, "native")
    llm = opened(folder, backend="native")
    if pages is not None:
        memory = pages * llm.engine.limits.page_bytes
        llm = opened(folder, backend="native", kv_memory=memory, token_budget=24)
    in_threads(*(lambda seed=seed: mixed.use(llm, seed, 12) for seed in range(8)))  # type: ignore[misc]
    gc.collect()
    assert not llm.engine.has_work()
    llm.engine.check_integrity()
    assert llm.engine._scheduler.pages.available == llm.engine.limits.pages


@built
def test_engines_over_one_model_and_second_models_run_in_threads_of_their_own(folder: str) -> None:
    mixed = Mixed(folder, 16, "native")
    first, second = (opened(folder, backend="native") for _ in range(2))
    second.engine._runner = Engine(first.model, second.engine.limits)._runner
    second.engine.model = first.model
    second._generation = replace(second._generating(), model=first.model)
    drafting = GREEDY.replace(speculate=DraftModel(first))
    (alone,) = second.generate("abab cdcd abab", GREEDY)

    def draft() -> None:
        for _ in range(20):
            (output,) = second.generate("abab cdcd abab", drafting)
            assert output.completions[0].token_ids == alone.completions[0].token_ids

    jobs = [lambda llm=llm, i=i: mixed.use(llm, i, 10) for i, llm in enumerate((first, second) * 2)]  # type: ignore[misc]
    in_threads(*jobs, draft)


def test_a_stream_left_half_read_blocks_nobody(folder: str) -> None:
    llm = opened(folder)
    (alone,) = llm.generate("abc", GREEDY)
    stream = llm.stream("abc", GREEDY)
    begun = [next(stream).token_ids for _ in range(2)]

    def generate() -> None:
        (output,) = llm.generate("abc", GREEDY)
        assert output.completions[0].token_ids == alone.completions[0].token_ids

    in_threads(generate, generate)
    rest = [event.token_ids for event in stream]
    assert [t for ids in begun + rest for t in ids] == alone.completions[0].token_ids


def test_an_exception_reaches_the_thread_whose_request_raises_it(folder: str) -> None:
    llm = opened(folder)
    (alone,) = llm.generate("abc", GREEDY)
    start = threading.Barrier(4)

    class RefusedError(Exception):
        pass

    def observer(event: Any) -> None:
        raise RefusedError

    def fail(ids: list[int]) -> bool:
        raise ValueError("enough")

    def watched() -> None:
        start.wait()
        for _ in range(20):
            with pytest.raises(RefusedError):
                llm.generate("abc", GREEDY, observer=observer)

    def failing() -> None:
        start.wait()
        for _ in range(20):
            with pytest.raises(RequestError, match="enough"):
                list(llm.stream("abc", GREEDY.replace(stop_when=fail)))

    def plain() -> None:
        start.wait()
        for _ in range(20):
            (output,) = llm.generate("abc", GREEDY)
            assert output.completions[0].token_ids == alone.completions[0].token_ids

    in_threads(watched, failing, plain, plain)


def test_within_a_step_its_own_thread_gets_an_error_and_others_wait(folder: str) -> None:
    llm = opened(folder)
    (alone,) = llm.generate("abc", GREEDY)
    within, seen = threading.Event(), Counter[str]()

    def again(ids: list[int]) -> bool:
        within.set()
        with pytest.raises(RequestError, match="in the middle of a step"):
            llm.generate("abc", GREEDY)
        seen["refused"] += 1
        time.sleep(0.02)
        return False

    def other() -> None:
        within.wait()
        (output,) = llm.generate("abc", GREEDY)
        assert output.completions[0].token_ids == alone.completions[0].token_ids

    in_threads(lambda: llm.generate("abc", GREEDY.replace(stop_when=again)), other)
    assert seen["refused"] == GREEDY.max_tokens
    assert not llm.engine.has_work()


# An interrupt within a callback of the collector is dropped, and reported as a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_interrupts_of_one_thread_leave_the_others_requests_right(folder: str) -> None:
    llm = opened(folder)
    long = GREEDY.replace(max_tokens=40, n=2, temperature=1, seed=1)
    (alone,) = llm.generate("abc", long)
    expected = [c.token_ids for c in alone.completions]
    stop = threading.Event()
    errors: list[object] = []

    def work() -> None:
        while not stop.is_set():
            try:
                (output,) = llm.generate("abc", long)
                if [c.token_ids for c in output.completions] != expected:
                    errors.append(output)
            except BaseException as error:
                errors.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    source, interrupts = random.Random(0), 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(300):
            try:
                # Again after a second: an exception may be dropped, within torch or the collector.
                signal.setitimer(signal.ITIMER_REAL, source.uniform(1e-4, 2e-2), 1)
                while True:
                    llm.generate("x", GREEDY)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
    for worker in workers:
        worker.join(LIMIT)
    assert not any(worker.is_alive() for worker in workers), "a thread hangs"
    assert not errors
    assert interrupts == 300
    llm.engine.check_integrity()
    (output,) = llm.generate("abc", long)
    assert [c.token_ids for c in output.completions] == expected


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=built)])
def test_the_number_of_threads_is_that_of_the_model_within_its_steps_and_of_nothing_else(
    folder: str, backend: str
) -> None:
    before = torch.get_num_threads(), library.own_threads() if library.available() else 0
    seen: list[tuple[int, int]] = []

    def look(ids: list[int]) -> bool:
        seen.append((torch.get_num_threads(), library.own_threads() if library.available() else 0))
        return False

    models = {count: opened(folder, backend=backend, threads=count) for count in (1, 2, 3)}
    models |= {0: opened(folder, backend=backend)}
    for count in (1, 2, 3, 1, 0, 2):
        models[count].generate("abc", GREEDY.replace(max_tokens=1, stop_when=look))
        number = seen.pop()[backend == "native"]
        assert number == (count or before[backend == "native"])
        assert (torch.get_num_threads(), library.own_threads() if library.available() else 0) == before


@built
def test_a_model_starts_as_many_threads_of_the_kernels_as_it_asks_for(folder: str) -> None:
    def tasks() -> int:
        return len(os.listdir("/proc/self/task"))

    def child() -> None:
        for count in (1, 2, 4, 1, 3):
            opened(folder, backend="native", threads=count).generate("abc", GREEDY)
            numbers.append(tasks())

    from tests.kernels.native.borders import killed_by

    numbers: list[int] = []

    def run() -> None:
        child()
        assert numbers == [1, 2, 4, 4, 4]

    assert killed_by(run) is None
