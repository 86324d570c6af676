"""Runs the texts of many callers in batches that they share, in one thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic

from decodery.encoding.text_batches import Batch, TextRunner, TokenText
from decodery.models.contract import EncoderModel

TOKENS_IN_TURN = 1024
"""The number of tokens that a shared batch has at most, if it has several texts."""


@dataclass(frozen=True)
class RanBatch:
    """Tells of a batch that has run: how many texts of how many tokens it had, and of which runner."""

    runner: TextRunner
    texts: int
    tokens: int


class SharedBatches:
    """Runs the texts that wait, of all callers together, in one thread.

    A batch has texts of one encoder. Each caller in turn has one text in it, until it has `tokens` tokens: so
    a caller with few texts does not wait for the end of one with many. `ran` is called in the thread after
    each batch. What a text gives does not depend on the batch, so callers are not told of each other.
    """

    def __init__(self, ran: Callable[[RanBatch], None], *, tokens: int = TOKENS_IN_TURN) -> None:
        self._ran = ran
        self._tokens = tokens
        self._changed = threading.Condition()
        self._waiting: list[_Work] = []
        self._stopping: Exception | None = None
        self._began: float | None = None
        self._thread = threading.Thread(target=self._serve, name="decodery-encoder", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, error: Exception) -> None:
        """Ends the thread after the batch that it runs; who waits and who comes later gets the error."""
        with self._changed:
            self._stopping = error
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        """True if the thread runs."""
        return self._thread.is_alive()

    @property
    def batch_since(self) -> float | None:
        """Returns when the batch that runs now began, on `time.monotonic`'s clock; None if none runs."""
        return self._began

    def waiting(self, runner: TextRunner) -> int:
        """Returns the number of callers whose texts wait for this runner."""
        with self._changed:
            return sum(work.runner is runner for work in self._waiting)

    def caller(
        self,
        runner: TextRunner,
        begun: Callable[[], None],
        check: Callable[[Sequence[TokenText]], None] = lambda texts: None,
    ) -> SharedRunner:
        """Returns a runner for one caller; `begun` is called in the thread before its first text runs.

        `check` is called with the texts before they wait, in the caller's thread, and may raise.
        """
        return SharedRunner(self, runner, begun, check)

    def _put(self, work: _Work) -> None:
        """Lets a caller's texts wait; raises its error, or that of `stop`."""
        with self._changed:
            error = work.caller._failure or self._stopping
            if error is not None:
                raise error
            self._waiting.append(work)
            self._changed.notify()

    def _fail(self, caller: SharedRunner, error: BaseException) -> None:
        """Drops a caller's texts that have not run; it gets the error now, or when it comes with others."""
        with self._changed:
            caller._failure = caller._failure or error
            for work in self._waiting:
                if work.caller is caller:
                    work.found.put(error)
            self._waiting = [work for work in self._waiting if work.caller is not caller]

    def _serve(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Runs one batch; returns False if the thread is to end. Nothing refers to the texts afterwards."""
        chosen = self._next()
        works = list(dict.fromkeys(work for work, _ in chosen))
        try:
            for work in works:
                work.caller._begin()
            if chosen:
                self._run(chosen)
        except BaseException as error:
            for work in works:
                self._fail(work.caller, error)
                work.found.put(error)
        self._began = None
        return bool(chosen)

    def _next(self) -> list[tuple[_Work, int]]:
        """Returns the texts of the next batch, after waiting for one; none if the thread is to end."""
        with self._changed:
            while not self._waiting and self._stopping is None:
                self._changed.wait()
            if self._stopping is not None:
                for work in self._waiting:
                    work.found.put(self._stopping)
                self._waiting.clear()
                return []
            self._began = monotonic()
            return self._chosen()

    def _chosen(self) -> list[tuple[_Work, int]]:
        """Takes texts in turn from the works that run like the first; they then wait behind the others."""
        first = self._waiting[0]
        turn = deque(work for work in self._waiting if work.runs_like(first))
        others = [work for work in self._waiting if not work.runs_like(first)]
        chosen: list[tuple[_Work, int]] = []
        total = 0
        while turn:
            work = turn[0]
            length = len(work.texts[work.next].ids)
            if chosen and total + length > self._tokens:
                break
            chosen.append((work, work.next))
            total += length
            work.next += 1
            turn.rotate(-1)
            if work.next == len(work.texts):
                turn.pop()
        self._waiting = [*others, *turn]
        return chosen

    def _run(self, chosen: Sequence[tuple[_Work, int]]) -> None:
        first = chosen[0][0]
        texts = [work.texts[index] for work, index in chosen]
        tokens = sum(len(text.ids) for text in texts)
        (batch,) = first.runner.run(texts, layers=first.layers, tokens=tokens)
        shares: dict[_Work, list[int]] = {}
        for place, number in enumerate(batch.indices):
            shares.setdefault(chosen[number][0], []).append(place)
        self._ran(RanBatch(first.runner, len(texts), tokens))
        for work, places in shares.items():
            indices = [chosen[batch.indices[place]][1] for place in places]
            starts = [batch.starts[place] for place in places]
            lengths = [batch.lengths[place] for place in places]
            work.found.put(Batch(indices, starts, lengths, batch.states, batch.layers))


class SharedRunner:
    """Runs the texts of one caller in batches that it shares with others; from one thread at a time.

    `texts` counts what the caller has given to it, `tokens` their tokens, and `lost` those that were cut off.
    """

    def __init__(
        self,
        batches: SharedBatches,
        runner: TextRunner,
        begun: Callable[[], None],
        check: Callable[[Sequence[TokenText]], None],
    ) -> None:
        self._batches = batches
        self._runner = runner
        self._begun: Callable[[], None] | None = begun
        self._check = check
        self.texts = self.tokens = self.lost = 0
        self._failure: BaseException | None = None

    @property
    def model(self) -> EncoderModel:
        """Returns the model that runs the texts."""
        return self._runner.model

    def run(
        self, texts: Sequence[TokenText], *, layers: Iterable[int] = (), tokens: int = 0
    ) -> Iterator[Batch]:
        """Yields the texts' states, as `BatchRunner.run` does, in batches whose size the others decide too.

        Raises the error of `fail`, and what the batch of one of the texts raised.
        """
        if not texts:
            return
        self._check(texts)
        self.texts += len(texts)
        self.tokens += sum(len(text.ids) for text in texts)
        self.lost += sum(text.lost for text in texts)
        work = _Work(self, self._runner, texts, tuple(sorted(set(layers))))
        self._batches._put(work)
        left = len(texts)
        while left:
            found = work.found.get()
            if isinstance(found, BaseException):
                raise found
            left -= len(found.indices)
            yield found

    def fail(self, error: Exception) -> None:
        """Drops the texts that have not run, and makes `run` raise the error; from any thread."""
        self._batches._fail(self, error)

    def _begin(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()


class _Work:
    """Holds the texts of one call of `run`, of which those before `next` have been taken."""

    def __init__(
        self, caller: SharedRunner, runner: TextRunner, texts: Sequence[TokenText], layers: tuple[int, ...]
    ) -> None:
        self.caller = caller
        self.runner = runner
        self.texts = texts
        self.layers = layers
        self.next = 0
        self.found: SimpleQueue[Batch | BaseException] = SimpleQueue()

    def runs_like(self, other: _Work) -> bool:
        """True if texts of both may run in one batch."""
        return self.runner is other.runner and self.layers == other.layers
