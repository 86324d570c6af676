"""Runs random requests, some of them dropped, for minutes, to find leaks: `python -m tests.soak`."""

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
"""The bytes by which memory may grow, between the medians of the second and the last quarter of a run."""


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def entries(folder: str) -> int:
    """Returns the number of threads ("task") or open files ("fd") of this process."""
    return len(os.listdir(f"/proc/self/{folder}"))


@dataclass
class SoakReport:
    """Holds counts of requests, and a sample of memory, threads and open files for every tenth request."""

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
        """Returns the bytes between the medians of the second and the last quarter of the run."""
        quarter = len(self.memory) // 4
        return statistics.median(self.memory[-quarter:]) - statistics.median(
            self.memory[quarter : 2 * quarter]
        )

    def check(self) -> None:
        """Raises `AssertionError` if something leaked. The first quarter of the run is warm-up."""
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
    """Runs random requests on an engine with few pages."""

    def __init__(self, folder: str, seed: int) -> None:
        self.report = SoakReport()
        self._source = random.Random(seed)
        self._features = features(folder)
        # The tokenizers library caches ten thousand texts, which would look like a leak.
        self._prompts = [random_prompt(self._source) for _ in range(100)]
        llm = LLM(folder, dtype="float32", backend="native", kv_memory="1MB", token_budget=24)
        memory = 2 * PAGES * llm.engine.limits.page_bytes  # The second model takes half of it.
        self._llm = LLM(folder, dtype="float32", backend="native", kv_memory=memory, token_budget=24)
        self._running: list[Generator[StreamEvent, None, None]] = []

    def run(self, requests: int) -> SoakReport:
        """Runs so many requests until they end or are dropped, and checks that no page is still held."""
        while self.report.requests < requests or self._running:
            if self.report.requests < requests and len(self._running) < 8:
                self._begin()
            self._advance()
            if self._source.random() < 0.05:
                self._llm.engine.check_integrity()
            if self._source.random() < 0.01:
                library.set_threads(self._source.randint(1, 3))
        self.report.preemptions = self._llm.engine.preemptions
        self._check_end()
        return self.report

    def _begin(self) -> None:
        self.report.requests += 1
        if self.report.requests % 10 == 0:
            self.report.sample()
        _, params = random_request(self._source, self._features)
        prompt = self._source.choice(self._prompts)
        try:
            self._running.append(self._llm.stream(prompt, params))
        except DecoderyError:
            self.report.refused += 1

    def _advance(self) -> None:
        """Takes one event of one request, which steps all of them, or drops the request."""
        if not self._running:
            return
        chosen = self._source.randrange(len(self._running))
        if self._source.random() < 0.03:
            self._running.pop(chosen).close()
            self.report.dropped += 1
            return
        ended: Any = object()
        event: Any = ended
        with contextlib.suppress(DecoderyError):  # A request whose grammar allows no token ends in an error.
            event = next(self._running[chosen], ended)
        if event is ended:
            self._running.pop(chosen)
            self.report.finished += 1

    def _check_end(self) -> None:
        engine = self._llm.engine
        assert not engine.has_work()
        engine.check_integrity()
        assert engine._scheduler.pages.available == PAGES
        for second in engine._second_models.values():
            second.retain(())  # As the next step would do.
            assert second._pages.available == second._pages.count  # type: ignore[attr-defined]


def soak(requests: int, seed: int) -> SoakReport:
    """Runs so many requests on a tiny random model, and returns the report."""
    with tempfile.TemporaryDirectory() as folder:
        library.set_threads(3)
        try:
            return Soak(write_model(Path(folder)), seed).run(requests)
        finally:
            library.set_threads(2)


def main() -> None:
    """Runs, prints the report, and checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    report = soak(asked.requests, asked.seed)
    sys.stdout.write(f"{report}, {time.monotonic() - began:.0f} s\n")
    report.check()


if __name__ == "__main__":
    main()
