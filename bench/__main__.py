"""Compares Decodery with transformers (`python -m bench`): prefill, decode, 8 streams, first token, memory.

Both run in turn, round after round, so that a change in the machine's speed affects both; what counts are the
medians and their ratios. `python -m bench.peers` runs all peers and measures far more.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from bench.contenders.contender import Contender
from bench.contenders.decodery import Decodery, own_dtype
from bench.contenders.transformers import Transformers
from bench.memory import peak_memory
from bench.peers.machine import machine_facts
from bench.peers.results import RanContender, Results, save
from bench.peers.tables import table
from bench.start import first_token
from bench.workloads import decode, prefill
from decodery.weights.sources.locate import resolve

WORKLOADS = (prefill(512), decode(1, 64), decode(8, 48))


def main() -> None:
    """Measures everything, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--backend", default="torch", choices=["torch", "native"])
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"))
    arguments = parser.parse_args()
    model = resolve(None)
    ours = Decodery(model, dtype=own_dtype(arguments.backend, arguments.dtype), backend=arguments.backend)
    peer = Transformers(model, dtype=arguments.dtype)
    contenders: dict[str, Contender] = {"decodery": ours, "transformers": peer}
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        shape="default",
        machine=machine_facts(torch.get_num_threads()),
        rounds=arguments.rounds,
        contenders=[
            RanContender(
                "decodery", version("decodery"), f"{arguments.backend}, {arguments.dtype}", ours.serving
            ),
            RanContender("transformers", version("transformers"), arguments.dtype, peer.serving),
        ],
    )
    measure(contenders, results)
    start, imports = first_token(arguments.rounds)
    memory = peak_memory("float32", 2048)
    for seconds, importing in zip(start, imports, strict=True):
        results.add("decodery", "shell to first token", seconds, "s", True)
        results.add("decodery", "of which importing torch", importing, "s", True)
    results.add("decodery", "peak memory, float32, 2048 tokens", memory, "bytes", True)
    print(table(results))
    save(results, arguments.json)
    print(f"written to {arguments.json}")


def measure(contenders: dict[str, Contender], results: Results) -> None:
    """Adds to `results` the tokens per second of each workload and contender, without a warm-up round."""
    for number in range(-1, results.rounds):
        for workload in WORKLOADS:
            for name, contender in contenders.items():
                for figure, value in workload.measure(contender, number).items():
                    if number >= 0:
                        results.add(name, figure, value, "tok/s")


if __name__ == "__main__":
    main()
