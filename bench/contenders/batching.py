"""How an engine without continuous batching serves requests that arrive over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.contenders.contender import Arrival, Prompt, Stamps

# Generates so many tokens for each prompt and tells when each step's tokens are there.
Batch = Callable[[Sequence[Prompt], int, Callable[[], None]], None]


def serve_in_batches(arrivals: Sequence[Arrival], run: Batch) -> list[list[float]]:
    """All requests that wait become one batch, which runs until the longest of them is done; then the next.

    A request has its tokens as its batch makes them, and is done when it has its own number.
    """
    stamps = Stamps(len(arrivals))
    waiting = sorted(range(len(arrivals)), key=lambda i: arrivals[i].at)
    start = time.perf_counter()
    while waiting:
        now = time.perf_counter() - start
        members = [i for i in waiting if arrivals[i].at <= now]
        if not members:
            time.sleep(arrivals[waiting[0]].at - now)
            continue
        waiting = waiting[len(members) :]

        def step(members: list[int] = members) -> None:
            now = time.perf_counter() - start
            for i in members:
                if len(stamps.times[i]) < arrivals[i].tokens:
                    stamps.times[i].append(now)

        run([arrivals[i].prompt for i in members], max(arrivals[i].tokens for i in members), step)
    return stamps.times
