"""Runs the measurements: each contender in its own process, all of them in turn, round after round."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from bench.contenders.contender import Contender, Writing
from bench.peers.catalogue import OURS, Entry
from bench.peers.machine import Limits
from bench.peers.results import Results
from bench.remote import MissingError, Remote, WorkerError
from bench.speculation import TASKS
from bench.start import first_token
from bench.workloads import Workload, decode, prefill, prompts

CONTEXT, NEW = 2048, 64
# Tokens of a text that is written with and without drafts, at most.
WRITTEN = 160


@dataclass
class Contestant:
    """Holds an entry with all that is needed to start its process."""

    entry: Entry
    python: Path
    model: Path
    threads: int
    logs: Path

    def start(self) -> Remote:
        """Starts the process, which loads the model."""
        log = self.logs / f"worker-{self.entry.name.replace(' ', '-')}.log"
        return Remote(self.python, self.entry.module, self.model, self.threads, log)


@dataclass
class Session:
    """Measures the contestants and adds the figures to `results`.

    `failed` has a contender's name and the measurement that it failed; it is not measured again. `serving`
    has each contender's own words on how it serves requests.
    """

    results: Results
    contestants: Sequence[Contestant]
    limits: Limits | None
    failed: set[tuple[str, str]] = field(default_factory=set)
    serving: dict[str, str] = field(default_factory=dict)

    def run(self, workloads: Sequence[Workload], groups: set[str]) -> None:
        """Measures the groups: those of the workloads, and "start", "sampling", "limits" and "drafts"."""
        if "start" in groups:
            self.measure_starts()
        with contextlib.ExitStack() as stack:
            workers = {
                c.entry.name: worker
                for c in self.contestants
                if (worker := self._start(c, stack)) is not None
            }
            chosen = [w for w in workloads if w.group in groups]
            for number in range(-1, self.results.rounds):
                began = perf_counter()
                for workload in chosen:
                    for name, worker in workers.items():
                        self._measure(workload, name, worker, number)
                ours = workers.get(OURS)
                if ours is not None and "sampling" in groups:
                    self._measure_sampling(ours, number)
                if ours is not None and "limits" in groups and number >= 0:
                    self._measure_shares(ours, number)
                if ours is not None and "drafts" in groups:
                    self._measure_drafts(workers, number)
                label = "warming up" if number < 0 else f"round {number + 1} of {self.results.rounds}"
                print(f"{label}: {perf_counter() - began:.0f} s", flush=True)

    def _start(self, contestant: Contestant, stack: contextlib.ExitStack) -> Remote | None:
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
    def _failures_noted(self, name: str, what: str) -> Iterator[None]:
        """Turns an error of a contender into an entry of `failed`, with the reason in the results."""
        try:
            yield
        except MissingError:
            self.failed.add((name, what))
        except WorkerError as error:
            self._leave_out(name, what, str(error))

    def _measure(self, workload: Workload, name: str, worker: Contender, number: int) -> None:
        if (name, workload.name) in self.failed:
            return
        with self._failures_noted(name, workload.name):
            if number < 0:
                workload.warm(worker)
                return
            for figure, value in workload.measure(worker, number).items():
                is_time = "time" in figure
                unit = "s" if is_time else "steps/s" if workload.group == "beam" else "tok/s"
                self.results.add(name, figure, value, unit, less_is_better=is_time)

    def measure_starts(self) -> None:
        """Measures fresh processes: the times of loading and of the first token, and once the peak memory."""
        for number in range(self.results.rounds):
            for contestant in self.contestants:
                name = contestant.entry.name
                if (name, "start") not in self.failed:
                    with self._failures_noted(name, "start"):
                        self._measure_start(contestant, number)
        if any(c.entry.name == OURS for c in self.contestants) and self.results.shape == "default":
            whole, imports = first_token(self.results.rounds)
            for a, b in zip(whole, imports, strict=True):
                self.results.add(OURS, "start, `decodery generate` to its first byte", a, "s", True)
                self.results.add(OURS, "start, of which importing torch", b, "s", True)

    def _measure_start(self, contestant: Contestant, number: int) -> None:
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

    def _measure_sampling(self, ours: Remote, number: int) -> None:
        """Measures the time per token of sampling with all its parameters, over that of greedy decoding."""
        for rows, tokens in ((1, 48), (8, 32)):
            taken = []
            for run in (ours.run, ours.sampled):
                timing = run(prompts(rows, 16, 1000 * rows + number), tokens if number >= 0 else 3)
                taken.append(timing.last - timing.first)
            if number >= 0:
                name = f"sampling over greedy, {rows} row{'s' if rows > 1 else ''}"
                self.results.add(OURS, name, taken[1] / taken[0], "ratio", True)

    def _measure_drafts(self, workers: dict[str, Remote], number: int) -> None:
        """Measures the tasks of `bench.speculation`, plainly and with drafts, by all over the GGUF file."""
        own_file = {c.entry.name for c in self.contestants if c.entry.form == "gguf"}
        prompts = workers[OURS].call("prompts", tasks=[[task.prompt, task.chat] for task in TASKS])
        for task, prompt in zip(TASKS, prompts, strict=True):
            grammar = task.params.get("grammar")
            writing = Writing(
                prompt,
                WRITTEN,
                seed=1000 * (number + 1),
                temperature=task.params["temperature"],
                top_p=task.params.get("top_p", 1.0),
                repetition_penalty=task.params.get("repetition_penalty", 1.0),
                schema=None if grammar is None else json.loads(grammar.schema),
                ignore_end=task.params.get("ignore_eos", False),
            )
            for name in [n for n in workers if n in own_file]:
                for drafts in (False, True):
                    self._measure_writing(name, workers[name], task.name, writing, drafts, number)

    def _measure_writing(
        self, name: str, worker: Remote, task: str, writing: Writing, drafts: bool, number: int
    ) -> None:
        if (name, task) in self.failed:
            return
        with self._failures_noted(name, task):
            timing = worker.write(writing, drafts)
            if number >= 0 and timing.tokens:
                rate = timing.tokens / (timing.last - timing.first)
                self.results.add_draft(f"{name}, {'drafts' if drafts else 'plain'}", task, rate)

    def _measure_shares(self, ours: Remote, number: int) -> None:
        """Measures Decodery and the machine's limits one after the other, and adds their ratios."""
        if self.limits is None:
            return
        limits = self.limits.measure(self.contestants[0].threads)
        facts = ours.call("facts")
        (steps,) = decode(1, 48).measure(ours, number + 5000).values()
        (tokens,) = prefill(512).measure(ours, number + 5000).values()
        self.results.add(OURS, "machine, memory bandwidth", limits["bandwidth"], "bytes/s")
        self.results.add(
            OURS,
            "share of the bandwidth, 1 stream",
            steps * facts["step_bytes"] / limits["bandwidth"],
            "share",
        )
        if limits["int8"]:
            done = 2 * tokens * facts["multiply_adds"]
            self.results.add(OURS, "machine, int8 operations", limits["int8"], "op/s")
            self.results.add(
                OURS, "share of the int8 operations, prefill 512", done / limits["int8"], "share"
            )
