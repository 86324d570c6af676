"""What is measured, as functions of a contender; each returns tokens per second."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from bench.peers import Contender


class Workload(Protocol):
    """A measurement; `seed` gives each round prompts of its own, so that nothing is served from a cache."""

    def __call__(self, contender: Contender, *, seed: int) -> float: ...


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Random token ids, the same for every contender."""
    rng = random.Random(f"{count} {length} {seed}")
    return [[rng.randrange(100, 40_000) for _ in range(length)] for _ in range(count)]


def prefill(length: int) -> Workload:
    """Prompt tokens per second, up to the first new token."""

    def run(contender: Contender, *, seed: int) -> float:
        return length / seconds(lambda: contender.generate(prompts(1, length, seed), 1))

    return run


def decode(streams: int, tokens: int) -> Workload:
    """New tokens per second of all streams, after a short prompt whose cost is taken out."""

    def run(contender: Contender, *, seed: int) -> float:
        batch = prompts(streams, 16, seed)
        first = seconds(lambda: contender.generate(batch, 1))
        # Other prompts of the same shape: the first ones may be remembered now.
        batch = prompts(streams, 16, -seed - 1)
        whole = seconds(lambda: contender.generate(batch, tokens + 1))
        return streams * tokens / (whole - first)

    return run


def seconds(action: Callable[[], object]) -> float:
    """How long the action takes."""
    start = perf_counter()
    action()
    return perf_counter() - start


WORKLOADS: dict[str, Workload] = {
    "prefill 512": prefill(512),
    "decode, 1 stream": decode(1, 64),
    "decode, 8 streams": decode(8, 48),
}
