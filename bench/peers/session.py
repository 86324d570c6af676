"""A run: every contender in its own process, all of them in turn, round after round."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from bench.contenders.contender import Contender
from bench.peers.catalogue import OURS, Entry
from bench.peers.machine import Limits
from bench.peers.results import Results
from bench.remote import MissingError, Remote, WorkerError
from bench.start import first_token
from bench.workloads import Workload, decode, prefill, prompts

CONTEXT, NEW = 2048, 64


@dataclass
class Contestant:
    """An entry with all that starts its process."""

    entry: Entry
    python: Path
    model: Path
    threads: int
    logs: Path

    def start(self) -> Remote:
        """Its process, with the model loaded."""
        log = self.logs / f"worker-{self.entry.name.replace(' ', '-')}.log"
        return Remote(self.python, self.entry.module, self.model, self.threads, log)


@dataclass
class Session:
    """What is being measured, and what was found.

    A contender that fails once at something is not asked for it again.
    """

    results: Results
    contestants: Sequence[Contestant]
    limits: Limits | None
    failed: set[tuple[str, str]] = field(default_factory=set)
    serving: dict[str, str] = field(default_factory=dict)

    def run(self, workloads: Sequence[Workload], groups: set[str]) -> None:
        """Measure the groups; "start", "sampling" and "limits" are beyond the workloads."""
        if "start" in groups:
            self.starts()
        with contextlib.ExitStack() as stack:
            workers = {
                c.entry.name: worker
                for c in self.contestants
                if (worker := self._opened(c, stack)) is not None
            }
            chosen = [w for w in workloads if w.group in groups]
            for number in range(-1, self.results.rounds):
                began = perf_counter()
                for workload in chosen:
                    for name, worker in workers.items():
                        self._measure(workload, name, worker, number)
                ours = workers.get(OURS)
                if ours is not None and "sampling" in groups:
                    self._sampling(ours, number)
                if ours is not None and "limits" in groups and number >= 0:
                    self._shares(ours, number)
                label = "warming up" if number < 0 else f"round {number + 1} of {self.results.rounds}"
                print(f"{label}: {perf_counter() - began:.0f} s", flush=True)

    def _opened(self, contestant: Contestant, stack: contextlib.ExitStack) -> Remote | None:
        try:
            worker = stack.enter_context(contestant.start())
        except WorkerError as error:
            if contestant.entry.name == OURS:
                raise
            self._leave_out(contestant.entry.name, "everything", str(error))
            return None
        self.serving[contestant.entry.name] = worker.serving
        return worker

    def _leave_out(self, name: str, what: str, why: str) -> None:
        self.failed.add((name, what))
        line = f"{name}, {what}: {why}"
        if line not in self.results.left_out:
            self.results.left_out.append(line)
            print(f"left out: {line}", flush=True)

    @contextlib.contextmanager
    def _guarded(self, name: str, what: str) -> Iterator[None]:
        try:
            yield
        except MissingError:
            self.failed.add((name, what))
        except WorkerError as error:
            self._leave_out(name, what, str(error))

    def _measure(self, workload: Workload, name: str, worker: Contender, number: int) -> None:
        if (name, workload.name) in self.failed:
            return
        with self._guarded(name, workload.name):
            if number < 0:
                workload.warm(worker)
                return
            for figure, value in workload.measure(worker, number).items():
                waits = "time" in figure
                unit = "s" if waits else "steps/s" if workload.group == "beam" else "tok/s"
                self.results.add(name, figure, value, unit, less_is_better=waits)

    def starts(self) -> None:
        """Fresh processes: loading, the first token and, once, the peak of memory."""
        for number in range(self.results.rounds):
            for contestant in self.contestants:
                name = contestant.entry.name
                if (name, "start") not in self.failed:
                    with self._guarded(name, "start"):
                        self._fresh(contestant, number)
        if any(c.entry.name == OURS for c in self.contestants) and self.results.shape == "default":
            whole, imports = first_token(self.results.rounds)
            for a, b in zip(whole, imports, strict=True):
                self.results.add(OURS, "start, `decodery generate` to its first byte", a, "s", True)
                self.results.add(OURS, "start, of which importing torch", b, "s", True)

    def _fresh(self, contestant: Contestant, number: int) -> None:
        name, add = contestant.entry.name, self.results.add
        start = perf_counter()
        with contestant.start() as worker:
            worker.run(prompts(1, 16, number), 1)
            whole = perf_counter() - start
            add(name, "start, importing", worker.hello["importing"], "s", True)
            add(name, "start, loading the model", worker.hello["loading"], "s", True)
            add(name, "start, process to first token", whole, "s", True)
            if number == 0:
                worker.run(prompts(1, CONTEXT - NEW, number), NEW)
                peak = float(worker.call("memory"))
                add(name, "memory, peak", peak, "bytes", True)
                add(name, "memory, beyond importing", peak - worker.hello["imported"], "bytes", True)

    def _sampling(self, ours: Remote, number: int) -> None:
        """What sampling with everything costs over greedy, in time a token."""
        for rows, tokens in ((1, 48), (8, 32)):
            taken = []
            for run in (ours.run, ours.sampled):
                timing = run(prompts(rows, 16, 1000 * rows + number), tokens if number >= 0 else 3)
                taken.append(timing.last - timing.first)
            if number >= 0:
                name = f"sampling over greedy, {rows} row{'s' if rows > 1 else ''}"
                self.results.add(OURS, name, taken[1] / taken[0], "ratio", True)

    def _shares(self, ours: Remote, number: int) -> None:
        """How much of the machine we use, both measured now."""
        if self.limits is None:
            return
        most = self.limits.measure(self.contestants[0].threads)
        facts = ours.call("facts")
        (steps,) = decode(1, 48).measure(ours, number + 5000).values()
        (tokens,) = prefill(512).measure(ours, number + 5000).values()
        self.results.add(OURS, "machine, memory bandwidth", most["bandwidth"], "bytes/s")
        self.results.add(
            OURS, "share of the bandwidth, 1 stream", steps * facts["step_bytes"] / most["bandwidth"], "share"
        )
        if most["int8"]:
            done = 2 * tokens * facts["multiply_adds"]
            self.results.add(OURS, "machine, int8 operations", most["int8"], "op/s")
            self.results.add(OURS, "share of the int8 operations, prefill 512", done / most["int8"], "share")
