"""Times an engine without continuous batching, and lets it serve requests that arrive over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.contenders.contender import Arrival, Prompt, Stamps, Timing

# Generates so many tokens after each prompt, and calls the function after each step.
Batch = Callable[[Sequence[Prompt], int, Callable[[], None]], None]


def run_in_steps(run: Batch, prompts: Sequence[Prompt], tokens: int) -> Timing:
    """Returns the timing of one batch, whose streams all get a token in each step."""
    times: list[float] = []
    start = time.perf_counter()
    run(prompts, tokens, lambda: times.append(time.perf_counter() - start))
    return Timing(times[0], times[-1], len(prompts) * (tokens - 1))


def serve_in_batches(arrivals: Sequence[Arrival], run: Batch, largest: int) -> list[list[float]]:
    """Returns the times of each request's tokens when requests are served in static batches.

    A batch has the oldest waiting request and the ones whose prompts are nearest to it in length, at most
    `largest` in all. It runs until its longest request is done; then the next batch begins. A request's
    tokens come with the steps of its batch, until it has as many as it asked for. `largest` should be the
    best value for the engine, which pads prompts of different lengths or runs what exceeds the shortest one
    by one.
    """
    stamps = Stamps(len(arrivals))
    waiting = sorted(range(len(arrivals)), key=lambda i: arrivals[i].at)
    start = time.perf_counter()
    while waiting:
        now = time.perf_counter() - start
        oldest = waiting[0]
        if arrivals[oldest].at > now:
            time.sleep(arrivals[oldest].at - now)
            continue
        ready = [i for i in waiting if arrivals[i].at <= now]
        ready.sort(key=lambda i: (i != oldest, abs(len(arrivals[i].prompt) - len(arrivals[oldest].prompt))))
        members = ready[:largest]
        waiting = [i for i in waiting if i not in members]

        def step(members: list[int] = members) -> None:
            now = time.perf_counter() - start
            for i in members:
                if len(stamps.times[i]) < arrivals[i].tokens:
                    stamps.times[i].append(now)

        run([arrivals[i].prompt for i in members], max(arrivals[i].tokens for i in members), step)
    return stamps.times
