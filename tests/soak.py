"""Random requests for some minutes, dropped at random: does anything leak? `python -m tests.soak` runs it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decodery import LLM, DecoderyError
from decodery.kernels.native import library
from decodery.outputs import StreamEvent
from tests.cli.conftest import write_model
from tests.combinations import features
from tests.mixed import random_prompt, random_request

PAGES = 16
GROWTH = 2 * 2**20
"""Bytes by which memory may have grown from the second quarter of a run to its last, medians of each."""


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def entries(folder: str) -> int:
    """How many threads ("task") or open files ("fd") this process has."""
    return len(os.listdir(f"/proc/self/{folder}"))


@dataclass
class Told:
    """What happened, and one sample of memory, threads and open files for every tenth request."""

    requests: int = 0
    finished: int = 0
    dropped: int = 0
    refused: int = 0
    preemptions: int = 0
    memory: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def sample(self) -> None:
        gc.collect()
        self.memory.append(resident())
        self.threads.append(entries("task"))
        self.files.append(entries("fd"))

    def growth(self) -> float:
        """Bytes between the medians of the second and the last quarter of the run."""
        quarter = len(self.memory) // 4
        return statistics.median(self.memory[-quarter:]) - statistics.median(
            self.memory[quarter : 2 * quarter]
        )

    def check(self) -> None:
        """Raise `AssertionError` where something leaked. The first quarter of the run is its warm-up."""
        quarter = len(self.memory) // 4
        assert self.growth() < GROWTH, f"memory grew by {self.growth() / 2**20:.1f} MB"
        for name, counts in (("threads", self.threads), ("files", self.files)):
            assert max(counts[quarter:]) == counts[quarter], f"{name}: {counts}"

    def __str__(self) -> str:
        at = [f"{self.memory[i * (len(self.memory) - 1) // 8] / 2**20:.0f}" for i in range(9)]
        return (
            f"{self.requests} requests: {self.finished} finished, {self.dropped} dropped, "
            f"{self.refused} refused, {self.preemptions} preemptions; MB at each eighth {' '.join(at)}, "
            f"{self.threads[-1]} threads, {self.files[-1]} files"
        )


class Soak:
    """An engine with few pages, and the requests that run on it."""

    def __init__(self, folder: str, seed: int) -> None:
        self.told = Told()
        self._source = random.Random(seed)
        self._features = features(folder)
        # The tokenizers library remembers ten thousand texts, which would look like a leak.
        self._prompts = [random_prompt(self._source) for _ in range(100)]
        llm = LLM(folder, dtype="float32", backend="native", kv_memory="1MB", token_budget=24)
        memory = PAGES * llm.engine.limits.page_bytes
        self._llm = LLM(folder, dtype="float32", backend="native", kv_memory=memory, token_budget=24)
        self._running: list[Generator[StreamEvent, None, None]] = []

    def run(self, requests: int) -> Told:
        """Runs so many requests to their ends or until they are dropped, and checks that nothing is left."""
        while self.told.requests < requests or self._running:
            if self.told.requests < requests and len(self._running) < 8:
                self._begin()
            self._advance()
            if self._source.random() < 0.05:
                self._llm.engine.check_integrity()
            if self._source.random() < 0.01:
                library.set_threads(self._source.randint(1, 3))
        self.told.preemptions = self._llm.engine.preemptions
        self._check_end()
        return self.told

    def _begin(self) -> None:
        self.told.requests += 1
        if self.told.requests % 10 == 0:
            self.told.sample()
        _, params = random_request(self._source, self._features)
        prompt = self._source.choice(self._prompts)
        try:
            self._running.append(self._llm.stream(prompt, params))
        except DecoderyError:
            self.told.refused += 1

    def _advance(self) -> None:
        """One event of one request, which steps them all, or the end of one."""
        if not self._running:
            return
        chosen = self._source.randrange(len(self._running))
        if self._source.random() < 0.03:
            self._running.pop(chosen).close()
            self.told.dropped += 1
            return
        ended: Any = object()
        event: Any = ended
        with contextlib.suppress(DecoderyError):  # What a grammar leaves no token for ends in an error.
            event = next(self._running[chosen], ended)
        if event is ended:
            self._running.pop(chosen)
            self.told.finished += 1

    def _check_end(self) -> None:
        engine = self._llm.engine
        assert not engine.has_work()
        engine.check_integrity()
        assert engine._scheduler.pages.available == PAGES
        for assistant in engine._assistants.values():
            assistant.retain(())  # As the next step would do.
            assert assistant._pages.available == assistant._pages.count  # type: ignore[attr-defined]


def soak(requests: int, seed: int) -> Told:
    """A run on a tiny random model."""
    with tempfile.TemporaryDirectory() as folder:
        library.set_threads(3)
        try:
            return Soak(write_model(Path(folder)), seed).run(requests)
        finally:
            library.set_threads(2)


def main() -> None:
    """Runs, tells and checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    told = soak(asked.requests, asked.seed)
    sys.stdout.write(f"{told}, {time.monotonic() - began:.0f} s\n")
    told.check()


if __name__ == "__main__":
    main()
