"""Defines the workloads, each of which measures a contender.

Each round has a `seed` and so its own prompts, which no cache has yet. All contenders get the same prompts.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.contenders.contender import Arrival, Contender

LATENCIES = ("time to first token", "time per token")


@dataclass(frozen=True)
class Workload:
    """Defines a measurement; `group` is its name for `--only`.

    `measure` returns its figures by name, for a seed. `warm` runs the same shapes once, as short as possible.
    """

    name: str
    group: str
    measure: Callable[[Contender, int], dict[str, float]]
    warm: Callable[[Contender], object]


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Returns `count` prompts of `length` random token ids."""
    rng = random.Random(f"{count} {length} {seed}")
    return [[rng.randrange(100, 40_000) for _ in range(length)] for _ in range(count)]


def prefill(length: int) -> Workload:
    """Measures prompt tokens per second, up to the first new token."""
    name = f"prefill {length}"

    def measure(contender: Contender, seed: int) -> dict[str, float]:
        return {name: length / contender.run(prompts(1, length, seed), 1).first}

    return Workload(name, "prefill", measure, lambda c: c.run(prompts(1, min(length, 512), -1), 1))


def decode(streams: int, tokens: int, context: int = 16) -> Workload:
    """Measures new tokens per second of all streams, after prompts of `context` tokens (not timed)."""
    name = f"decode, {streams} stream{'s' if streams > 1 else ''}"
    group = "decode"
    if context != 16:
        name, group = f"{name}, context {context}", "context"

    def measure(contender: Contender, seed: int) -> dict[str, float]:
        timing = contender.run(prompts(streams, context, seed), tokens)
        return {name: timing.tokens / (timing.last - timing.first)}

    return Workload(name, group, measure, lambda c: c.run(prompts(streams, 16, -1), 3))


def beam(beams: int, tokens: int) -> Workload:
    """Measures steps per second of a beam search after 16 tokens, with the time of its prompt."""
    name = f"beam {beams}, steps"

    def measure(contender: Contender, seed: int) -> dict[str, float]:
        return {name: tokens / contender.beams(prompts(1, 16, seed)[0], tokens, beams)}

    return Workload(name, "beam", measure, lambda c: c.beams(prompts(1, 16, -1)[0], 3, beams))


def load(requests: int, seed: int) -> list[Arrival]:
    """Returns requests of 16 to 384 tokens for 8 to 64 new ones; 25 arrive a second, more short than long."""
    rng = random.Random(f"load {requests} {seed}")
    at, arrivals = 0.0, []
    for _ in range(requests):
        length, tokens = (round(math.exp(rng.uniform(math.log(a), math.log(b)))) for a, b in _SIZES)
        arrivals.append(Arrival(at, [rng.randrange(100, 40_000) for _ in range(length)], tokens))
        at += rng.expovariate(25)
    return arrivals


_SIZES = ((16, 384), (8, 64))


def mixed(requests: int) -> Workload:
    """Measures requests of many lengths that arrive over time: tokens per second, and how long users wait."""
    name = f"mixed load of {requests}"

    def measure(contender: Contender, seed: int) -> dict[str, float]:
        arrivals = load(requests, seed)
        times = contender.serve(arrivals)
        assert [len(t) for t in times] == [a.tokens for a in arrivals]
        firsts = [t[0] - a.at for t, a in zip(times, arrivals, strict=True)]
        gaps = [b - a for t in times for a, b in pairwise(t)]
        figures = {name: sum(a.tokens for a in arrivals) / max(t[-1] for t in times)}
        for label, values in zip(LATENCIES, (firsts, gaps), strict=True):
            figures[f"{name}, {label}, p50"] = statistics.median(values)
            figures[f"{name}, {label}, p99"] = percentile(values, 99)
        return figures

    def warm(contender: Contender) -> object:
        return contender.serve([Arrival(0.0, a.prompt[:32], min(a.tokens, 8)) for a in load(16, -1)])

    return Workload(name, "mixed", measure, warm)


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns the smallest value that at least `percent` percent of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


DEFAULT = [
    prefill(512),
    prefill(2048),
    decode(1, 64),
    decode(1, 32, 1024),
    decode(1, 24, 4096),
    decode(2, 32),
    decode(4, 32),
    decode(8, 32),
    decode(16, 24),
    decode(32, 16),
    beam(4, 32),
    mixed(32),
]
SHORT = [prefill(512), decode(1, 16), decode(8, 12)]
