"""How an engine without continuous batching is timed, and serves requests that arrive over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.contenders.contender import Arrival, Prompt, Stamps, Timing

# Generates so many tokens for each prompt and tells when each step's tokens are there.
Batch = Callable[[Sequence[Prompt], int, Callable[[], None]], None]


def run_in_steps(run: Batch, prompts: Sequence[Prompt], tokens: int) -> Timing:
    """The timing of one batch whose streams go on together."""
    times: list[float] = []
    start = time.perf_counter()
    run(prompts, tokens, lambda: times.append(time.perf_counter() - start))
    return Timing(times[0], times[-1], len(prompts) * (tokens - 1))


def serve_in_batches(arrivals: Sequence[Arrival], run: Batch, largest: int) -> list[list[float]]:
    """The oldest request and those of the waiting ones whose prompts are the most like its own in length,
    `largest` in all, run as a batch until the longest of them is done; then the next.

    A request has its tokens as its batch makes them, and is done when it has its own number. `largest` is
    what suits the engine best: a batch pads prompts, or runs what is beyond the shortest one by one.
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
        here = [i for i in waiting if arrivals[i].at <= now]
        here.sort(key=lambda i: (i != oldest, abs(len(arrivals[i].prompt) - len(arrivals[oldest].prompt))))
        members = here[:largest]
        waiting = [i for i in waiting if i not in members]

        def step(members: list[int] = members) -> None:
            now = time.perf_counter() - start
            for i in members:
                if len(stamps.times[i]) < arrivals[i].tokens:
                    stamps.times[i].append(now)

        run([arrivals[i].prompt for i in members], max(arrivals[i].tokens for i in members), step)
    return stamps.times
