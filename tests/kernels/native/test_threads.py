"""Checks the kernels' threads: concurrent callers run one after the other, and forked children work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import pack
from decodery.kernels.quantise import quantise
from tests.kernels.native.borders import killed_by
from tests.kernels.native.fixtures import built
from tests.kernels.rows import rows

pytestmark = built


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    library.set_threads(2)
    yield
    library.set_threads(2)
    library.use_instruction_set(library.first_instruction_set())


def job(seed: int, count: int = 40) -> Callable[[], Tensor]:
    """Returns a product of several stages and chunks, whose threads share quantised rows."""
    kernels, x = NativeKernels(), rows(300, torch.float32, count, seed)
    weight = pack(quantise(rows(300, torch.float32, 200, seed + 1), "int8"))
    return lambda: kernels.linear(kernels.rms_norm(x, torch.ones(300), 1e-5), weight)


def test_threads_that_call_at_once_get_what_each_gets_alone() -> None:
    jobs = [job(seed, count) for seed, count in ((0, 40), (1, 3), (2, 130))]
    expected = [run() for run in jobs]
    wrong: list[int] = []

    def repeat(index: int) -> None:
        for _ in range(60):
            if not torch.equal(jobs[index](), expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=repeat, args=(index,)) for index in range(3)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        for count in (1, 3, 2):
            library.set_threads(count)
        for name in library.instruction_sets():
            library.use_instruction_set(name)
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_forked_child_computes_the_same_with_threads_of_its_own() -> None:
    run = job(0)
    expected = run()

    def child() -> None:
        before = len(os.listdir("/proc/self/task"))
        assert torch.equal(run(), expected)
        assert len(os.listdir("/proc/self/task")) == before + 1

    assert killed_by(child) is None
    assert torch.equal(run(), expected)


def test_the_calling_threads_number_holds_for_it_alone() -> None:
    run = job(0)
    expected = run()

    def child() -> None:
        before = len(os.listdir("/proc/self/task"))
        library.set_own_threads(1)
        assert torch.equal(run(), expected)
        assert len(os.listdir("/proc/self/task")) == before
        counts: list[int] = []

        def elsewhere() -> None:
            assert library.own_threads() == 0
            run()
            counts.append(len(os.listdir("/proc/self/task")))

        caller = threading.Thread(target=elsewhere)
        caller.start()
        caller.join()
        assert counts == [before + 2]  # This one, and the kernels' own second thread.

    assert killed_by(child) is None


def test_a_number_above_that_of_the_process_starts_more_threads() -> None:
    run = job(0)
    expected = run()

    def child() -> None:
        before = len(os.listdir("/proc/self/task"))
        library.set_own_threads(4)
        assert torch.equal(run(), expected)
        assert len(os.listdir("/proc/self/task")) == before + 3

    assert killed_by(child) is None


def test_a_thread_beyond_the_number_of_a_run_does_not_work() -> None:
    run = job(0)

    def worked() -> dict[str, int]:
        """Returns the nanoseconds for which each thread of this process has run."""
        tasks = Path("/proc/self/task")
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()}

    def child() -> None:
        library.set_own_threads(3)
        run()
        library.set_own_threads(1)
        before = worked()
        for _ in range(200):  # Until the threads sleep, also on a busy machine.
            time.sleep(0.1)
            earlier, before = before, worked()
            if all(before[task] == earlier[task] for task in before if task != str(os.getpid())):
                break
        for _ in range(20):
            run()
        after = worked()
        ran = {task for task in after if after[task] > before[task]}
        assert len(after) == 3
        assert ran <= {str(os.getpid())}

    assert killed_by(child) is None


def test_a_fork_in_the_middle_of_another_threads_run_leaves_the_child_free() -> None:
    run, busy = job(0), job(1, 600)
    expected, stop = run(), threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            busy()

    def child() -> None:
        assert torch.equal(run(), expected)

    caller = threading.Thread(target=keep_busy)
    caller.start()
    try:
        for _ in range(10):
            time.sleep(0.003)
            assert killed_by(child, seconds=20) is None
    finally:
        stop.set()
        caller.join()
