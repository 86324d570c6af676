"""`python -m bench`: prefill, decode, 8 streams, first token and memory, beside transformers.

Peers and we run in turn, round after round, so that a machine whose speed drifts does it to both; medians and
their ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from bench.memory import peak_memory
from bench.peers import PEERS, Contender, Decodery
from bench.start import first_token
from bench.workloads import WORKLOADS
from decodery.weights.sources import resolve

Results = dict[str, dict[str, list[float]]]


def measure(contenders: dict[str, Contender], rounds: int) -> Results:
    """Tokens per second of every workload and contender, a value a round; one warm-up round is left out."""
    results: Results = {name: {peer: [] for peer in contenders} for name in WORKLOADS}
    for round_number in range(-1, rounds):
        for name, workload in WORKLOADS.items():
            for peer, contender in contenders.items():
                speed = workload(contender, seed=round_number + 1)
                if round_number >= 0:
                    results[name][peer].append(speed)
    return results


def report(results: Results, ours: str, unit: str = "tok/s") -> None:
    """Print medians, their spread, and our ratio to each peer."""
    peers = list(next(iter(results.values())))
    print(f"{'':20}" + "".join(f"{peer:>30}" for peer in peers))
    for name, row in results.items():
        mine = statistics.median(row[ours])
        line = f"{name:20}"
        for peer in peers:
            values = row[peer]
            median = statistics.median(values)
            ratio = "" if peer == ours else f" ({mine / median:.2f}x)"
            spread = f"[{min(values):.0f}-{max(values):.0f}]"
            line += f"{f'{median:.1f} {spread}{ratio}':>30}"
        print(line)
    print(f"{unit}, medians [min-max]; in brackets, ours divided by the peer's")


def main() -> None:
    """Run everything and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--backend", default="reference", choices=["reference", "native"])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="run beside us")
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"))
    arguments = parser.parse_args()
    model = resolve(None)
    contenders: dict[str, Contender] = {"decodery": Decodery(model, arguments.dtype, arguments.backend)}
    contenders |= {name: PEERS[name](model, arguments.dtype) for name in arguments.peers}
    results = measure(contenders, arguments.rounds)
    report(results, "decodery")
    start, imports = first_token(arguments.rounds)
    memory = peak_memory("float32", 2048)
    print(f"shell to first token: {statistics.median(start):.2f} s")
    print(f"  of which importing torch: {statistics.median(imports):.2f} s")
    print(f"peak memory, float32, 2048 tokens: {memory / 1e6:.0f} MB")
    written = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("decodery", "torch", "transformers")},
        "dtype": arguments.dtype,
        "backend": arguments.backend,
        "tokens_per_second": results,
        "seconds_to_first_token": start,
        "seconds_to_import_torch": imports,
        "peak_memory_float32_2048_bytes": memory,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"written to {arguments.json}")


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
