"""Measures a mixed load under bounds of the step's length (`python -m bench.step_bound`).

All bounds run in turn, round after round, with the requests of `bench.workloads.load`. What counts are the
medians over the rounds; for the throughput, that of the ratio within a round to the one without a bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench.contenders.decodery import Decodery
from bench.peers.machine import processor
from bench.workloads import LATENCIES, mixed
from decodery.weights.sources.locate import resolve

OFF = "off"


def main() -> None:
    """Measures everything, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.step_bound", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--bounds", type=float, nargs="*", default=[25, 35, 50, 70], help="milliseconds")
    parser.add_argument("--json", type=Path, default=Path("bench/results/step-bound.json"))
    arguments = parser.parse_args()
    model = resolve(None)
    contenders = {OFF: Decodery(model)}
    contenders |= {f"{bound:g} ms": Decodery(model, max_step_ms=bound) for bound in arguments.bounds}
    workload = mixed(arguments.requests)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(-1, arguments.rounds):
        for name, contender in contenders.items():
            found = workload.measure(contender, number)
            if number >= 0:
                rounds[name].append(found)
    print(table(rounds, workload.name))
    for name, contender in contenders.items():
        print(f"{name:>8}: longest step {contender.llm.engine.statistics().longest_step * 1000:.0f} ms")
    written = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "rounds": rounds,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def table(rounds: dict[str, list[dict[str, float]]], workload: str) -> str:
    """Returns the medians of each bound as lines of text."""
    first, each = (f"{workload}, {label}" for label in LATENCIES)
    lines = ["   bound  tok/s  over off  per token p50   p99  p99/p50  first p50   p99 (ms)"]
    for name, found in rounds.items():
        ratio = statistics.median(a[workload] / b[workload] for a, b in zip(found, rounds[OFF], strict=True))
        spread = statistics.median(f[f"{each}, p99"] / f[f"{each}, p50"] for f in found)
        p50, p99, first50, first99 = (
            1000 * statistics.median(f[f"{label}, {percent}"] for f in found)
            for label in (each, first)
            for percent in ("p50", "p99")
        )
        tokens = statistics.median(f[workload] for f in found)
        rates = f"{name:>8} {tokens:6.0f} {ratio:9.2f}"
        lines.append(f"{rates} {p50:14.1f} {p99:5.0f} {spread:8.1f} {first50:10.0f} {first99:5.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
