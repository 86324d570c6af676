"""Tests the batches that several callers share, with a stand-in for the runner of a model."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from decodery.encoding.shared_batches import RanBatch, SharedBatches, SharedRunner
from decodery.encoding.text_batches import Batch, TokenText
from decodery.errors import RequestError


class FakeRunner:
    """Gives a token the state [id, number of layers asked for]; waits for `gate` before each batch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[tuple[int, ...]]] = []
        self.failure: Exception | None = None
        self.entered = threading.Semaphore(0)

    @property
    def model(self) -> Any:
        return None

    def run(
        self, texts: Sequence[TokenText], *, layers: Iterable[int] = (), tokens: int = 0
    ) -> Iterator[Batch]:
        self.batches.append([text.ids for text in texts])
        self.entered.release()
        assert self.gate.wait(10)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        # As the real one does: the longest texts first.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index].ids))
        lengths = [len(texts[index].ids) for index in order]
        starts = [sum(lengths[:place]) for place in range(len(lengths))]
        ids = [float(token) for index in order for token in texts[index].ids]
        states = torch.tensor([[token, float(len(tuple(layers)))] for token in ids])
        yield Batch(order, starts, lengths, states, {})


class Callers:
    """Holds shared batches, and threads that call them."""

    def __init__(self, tokens: int) -> None:
        self.ran: list[RanBatch] = []
        self.batches = SharedBatches(self.ran.append, tokens=tokens)
        self.batches.start()
        self.pool = ThreadPoolExecutor(16)
        self.begun: list[SharedRunner] = []

    def caller(self, runner: FakeRunner, begun: Callable[[], None] = lambda: None) -> SharedRunner:
        return self.batches.caller(runner, begun)

    def call(self, caller: SharedRunner, texts: Sequence[TokenText], **options: Any) -> Any:
        """Returns a future of the states of each text, as lists."""
        return self.pool.submit(states_of, caller, texts, **options)


def states_of(caller: SharedRunner, texts: Sequence[TokenText], **options: Any) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for batch in caller.run(texts, **options):
        for place, index in enumerate(batch.indices):
            found[index] = batch.of(place)[:, 0].tolist()
    return [found[index] for index in range(len(texts))]


def texts_of(*lengths: int, first: int = 0) -> list[TokenText]:
    """Returns texts of these lengths, all of whose ids differ."""
    found = []
    for length in lengths:
        found.append(TokenText(tuple(range(first, first + length)), (0,) * length))
        first += length
    return found


def ids_of(texts: Sequence[TokenText]) -> list[list[float]]:
    return [[float(token) for token in text.ids] for text in texts]


@pytest.fixture
def callers() -> Iterator[Callers]:
    found = Callers(tokens=10)
    yield found
    found.batches.stop(RequestError("the test has ended"))
    found.pool.shutdown()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the condition does not come to hold")


def test_what_waits_runs_together_and_each_caller_gets_its_own_texts(callers: Callers) -> None:
    runner = FakeRunner()
    first = callers.call(callers.caller(runner), texts_of(1, first=900))
    assert runner.entered.acquire(timeout=10)
    given = [texts_of(1, 3, first=100), texts_of(2, 1, first=200), texts_of(1, first=300)]
    futures = [callers.call(callers.caller(runner), texts) for texts in given]
    until(lambda: callers.batches.waiting(runner) == 3)
    runner.gate.set()
    assert first.result(10) == [[900.0]]
    for future, texts in zip(futures, given, strict=True):
        assert future.result(10) == ids_of(texts)
    assert len(runner.batches) == 2
    assert [(ran.texts, ran.tokens) for ran in callers.ran] == [(1, 1), (5, 8)]


def test_a_batch_is_bounded_by_tokens_and_a_longer_text_runs_alone(callers: Callers) -> None:
    runner = FakeRunner()
    runner.gate.set()
    texts = texts_of(4, 4, 4, 25, 1)
    assert callers.call(callers.caller(runner), texts).result(10) == ids_of(texts)
    assert [[len(ids) for ids in batch] for batch in runner.batches] == [[4, 4], [4], [25], [1]]


def test_a_caller_with_few_texts_does_not_wait_for_the_end_of_one_with_many(callers: Callers) -> None:
    runner = FakeRunner()
    many = callers.call(callers.caller(runner), texts_of(*[5] * 20))
    assert runner.entered.acquire(timeout=10)
    few = callers.call(callers.caller(runner), texts_of(5, first=500))
    until(lambda: callers.batches.waiting(runner) == 2)
    runner.gate.set()
    assert few.result(10) == [[500.0, 501.0, 502.0, 503.0, 504.0]]
    many.result(10)
    place = next(n for n, batch in enumerate(runner.batches) if batch[0][0] == 500 or batch[-1][0] == 500)
    assert place == 1
    assert len(runner.batches) == 11


def test_encoders_take_turns_and_never_share_a_batch(callers: Callers) -> None:
    one, two = FakeRunner(), FakeRunner()
    two.gate.set()
    first = callers.call(callers.caller(one), texts_of(*[8] * 4))
    assert one.entered.acquire(timeout=10)
    second = callers.call(callers.caller(two), texts_of(8, 8, first=100))
    until(lambda: callers.batches.waiting(two) == 1)
    one.gate.set()
    assert first.result(10) == ids_of(texts_of(*[8] * 4))
    assert second.result(10) == ids_of(texts_of(8, 8, first=100))
    assert [ran.runner for ran in callers.ran] == [one, one, two, one, two, one]


def test_texts_whose_layers_are_asked_for_run_apart(callers: Callers) -> None:
    runner = FakeRunner()
    block = callers.call(callers.caller(runner), texts_of(1))
    assert runner.entered.acquire(timeout=10)
    plain = callers.call(callers.caller(runner), texts_of(1, first=10))
    tapped = callers.call(callers.caller(runner), texts_of(1, first=20), layers=[1, 2])
    until(lambda: callers.batches.waiting(runner) == 2)
    runner.gate.set()
    assert (block.result(10), plain.result(10), tapped.result(10)) == ([[0.0]], [[10.0]], [[20.0]])
    assert len(runner.batches) == 3


def test_texts_of_a_caller_that_leaves_do_not_run(callers: Callers) -> None:
    runner = FakeRunner()
    block = callers.call(callers.caller(runner), texts_of(1, first=900))
    assert runner.entered.acquire(timeout=10)
    leaver = callers.caller(runner)
    gone = callers.call(leaver, texts_of(3, 3, first=100))
    stays = callers.call(callers.caller(runner), texts_of(2, first=200))
    until(lambda: callers.batches.waiting(runner) == 2)
    leaver.fail(RequestError("gone"))
    with pytest.raises(RequestError, match="gone"):
        gone.result(10)
    runner.gate.set()
    assert block.result(10) == [[900.0]]
    assert stays.result(10) == [[200.0, 201.0]]
    assert [batch[0][0] for batch in runner.batches] == [900, 200]
    with pytest.raises(RequestError, match="gone"):
        states_of(leaver, texts_of(1))


def test_a_batch_that_fails_fails_its_callers_and_the_next_ones_run(callers: Callers) -> None:
    runner = FakeRunner()
    runner.failure = ValueError("broken")
    runner.gate.set()
    failing = callers.caller(runner)
    with pytest.raises(ValueError, match="broken"):
        states_of(failing, texts_of(8, 8, 8))
    assert callers.batches.waiting(runner) == 0
    assert states_of(callers.caller(runner), texts_of(2)) == [[0.0, 1.0]]
    assert callers.batches.is_alive


def test_a_caller_begins_once_before_its_first_batch(callers: Callers) -> None:
    runner = FakeRunner()
    begun = []
    caller = callers.caller(runner, lambda: begun.append(len(runner.batches)))
    runner.gate.set()
    states_of(caller, texts_of(8, 8, 8))
    states_of(caller, texts_of(1))
    assert begun == [0]
    assert (caller.texts, caller.tokens) == (4, 25)


def test_texts_that_are_refused_never_wait(callers: Callers) -> None:
    runner = FakeRunner()

    def refuse(texts: Sequence[TokenText]) -> None:
        raise RequestError("too many")

    with pytest.raises(RequestError, match="too many"):
        states_of(callers.batches.caller(runner, lambda: None, refuse), texts_of(1))
    assert runner.batches == []


def test_who_waits_at_the_end_and_who_comes_later_get_the_error() -> None:
    callers = Callers(tokens=10)
    runner = FakeRunner()
    running = callers.call(callers.caller(runner), texts_of(1))
    assert runner.entered.acquire(timeout=10)
    waiting = callers.call(callers.caller(runner), texts_of(1))
    until(lambda: callers.batches.waiting(runner) == 1)
    callers.batches.stop(RequestError("stopping"))
    runner.gate.set()
    assert running.result(10) == [[0.0]]
    with pytest.raises(RequestError, match="stopping"):
        waiting.result(10)
    with pytest.raises(RequestError, match="stopping"):
        states_of(callers.caller(runner), texts_of(1))
    until(lambda: not callers.batches.is_alive)
    callers.pool.shutdown()


def test_nothing_refers_to_a_runner_after_its_batches(callers: Callers) -> None:
    runner = FakeRunner()
    runner.gate.set()
    states_of(callers.caller(runner), texts_of(1))
    until(lambda: callers.batches.batch_since is None)
    alive = weakref.ref(runner)
    callers.ran.clear()
    del runner
    gc.collect()
    assert alive() is None


def test_many_threads_with_many_texts_get_their_own_states(callers: Callers) -> None:
    runner = FakeRunner()
    runner.gate.set()
    given = [texts_of(*[1 + (n * k) % 7 for k in range(20)], first=1000 * n) for n in range(12)]
    futures = [callers.call(callers.caller(runner), texts) for texts in given]
    for future, texts in zip(futures, given, strict=True):
        assert future.result(20) == ids_of(texts)
    assert sum(len(batch) for batch in runner.batches) == 240
