"""Measures Decodery and all peers in turn, in one run (`python -m bench.peers`, `make bench-peers`)."""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from bench.peers.catalogue import CATALOGUE, OURS, Entry
from bench.peers.conversions import weights_of
from bench.peers.environments import UnavailableError, python_of, version_in
from bench.peers.machine import Limits, cores, machine_facts
from bench.peers.results import RanContender, Results, save
from bench.peers.session import Contestant, Session
from bench.peers.shapes import SHAPES, gguf_of
from bench.peers.tables import drafts_table, publish, table
from bench.remote import ROOT
from bench.workloads import DEFAULT, SHORT

RESULTS = ROOT / "bench" / "results"
# The groups of measurements that are not workloads.
EXTRA_GROUPS = ("start", "sampling", "limits", "drafts")


def main() -> None:
    """Sets the contenders up, measures them, and prints and writes the results."""
    arguments = _arguments()
    began = perf_counter()
    workloads = DEFAULT if arguments.shape == "default" else SHORT
    results = Results(
        date=datetime.now(UTC).date().isoformat(),
        shape=arguments.shape,
        machine=machine_facts(arguments.threads),
        rounds=arguments.rounds,
    )
    wanted = {OURS, *arguments.peers}
    if arguments.shape != "default":
        # The GGUF files of the other shapes are Q4_0 already.
        wanted.discard("llama.cpp Q4_0")
    entries = [e for e in CATALOGUE if e.name in wanted]
    contestants = _contestants(entries, gguf_of(arguments.shape), arguments.threads, results)
    print(f"set up: {perf_counter() - began:.0f} s")
    if arguments.set_up:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            limits = Limits(Path(folder))
        except UnavailableError as why:
            limits = None
            results.left_out.append(str(why))
        session = Session(results, contestants, limits)
        session.run(workloads, set(arguments.only or [*EXTRA_GROUPS, *(w.group for w in workloads)]))
    for contestant in contestants:
        entry = contestant.entry
        installed = version("decodery") if entry.name == OURS else version_in(entry)
        serving = session.serving.get(entry.name, "")
        results.contenders.append(RanContender(entry.name, installed, entry.weights, serving))
    print(table(results))
    print(drafts_table(results))
    path = RESULTS / f"peers-{arguments.shape}.json"
    save(results, path)
    print(f"written to {path} after {perf_counter() - began:.0f} s")
    if arguments.publish:
        publish(results)


def _arguments() -> argparse.Namespace:
    peers = [e.name for e in CATALOGUE if e.name != OURS]
    groups = sorted({w.group for w in DEFAULT} | set(EXTRA_GROUPS))
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument("--only", nargs="*", choices=groups, help="measure only these groups")
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers, metavar="NAME", help=str(peers))
    parser.add_argument(
        "--shape", default="default", choices=["default", *SHAPES], help="the model to measure"
    )
    parser.add_argument("--threads", type=int, default=cores(), help="threads of each contender")
    parser.add_argument("--set-up", action="store_true", help="install and convert, measure nothing")
    parser.add_argument("--publish", action="store_true", help="update docs/benchmarks.json and .md")
    return parser.parse_args()


def _contestants(entries: list[Entry], gguf: Path, threads: int, results: Results) -> list[Contestant]:
    """Returns those that can run here; adds to `results.left_out` why the others cannot."""
    found = []
    for entry in entries:
        try:
            python = python_of(entry)
            model = weights_of(entry, gguf, results.shape)
        except UnavailableError as why:
            results.left_out.append(str(why))
            print(f"left out: {why}")
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        found.append(Contestant(entry, python, model, threads, RESULTS))
    return found


if __name__ == "__main__":
    main()
