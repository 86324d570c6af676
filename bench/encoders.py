"""Measures how fast sentences become vectors, beside the peers (`python -m bench.encoders`).

256 sentences of mixed length go through the MiniLM encoder, in batches of each peer's best size, and one
short sentence alone. All contenders run in turn, round after round, each in its own process. What counts are
the medians of the ratios within a round. The worst cosine is between a contender's vectors and those of
transformers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy

from bench.contenders.encoders.batches import SIZES
from bench.peers.catalogue import Entry
from bench.peers.environments import UnavailableError, python_of
from bench.peers.machine import cores, processor
from bench.remote import ROOT, Remote, WorkerError
from decodery.weights.sources.locate import resolve

RESULTS = ROOT / "bench" / "results"
ENVIRONMENT = ".venv-peers-encoders"
ONE = "A short question about cats?"


def _peer(name: str, module: str, distribution: str) -> Entry:
    return Entry(name, f"bench.contenders.encoders.{module}", "", "", ENVIRONMENT, "encoders", distribution)


def _own(name: str, module: str) -> Entry:
    return Entry(name, f"bench.contenders.encoders.{module}", "", "")


OURS, OURS_INT8 = "decodery", "decodery int8"
FLOAT = {
    OURS: _own(OURS, "decodery"),
    "transformers": _peer("transformers", "transformers", "transformers"),
    "sentence-transformers": _peer("sentence-transformers", "sentence_transformers", "sentence-transformers"),
    "onnxruntime": _peer("onnxruntime", "onnxruntime", "onnxruntime"),
}
INT8 = {
    OURS_INT8: _own(OURS_INT8, "decodery_int8"),
    "onnxruntime int8": _peer("onnxruntime int8", "onnxruntime_int8", "onnxruntime"),
}


@dataclass
class Measured:
    """Holds the seconds of each round for one contender, its best size of batch and its worst cosine."""

    many: list[float] = field(default_factory=list)
    one: list[float] = field(default_factory=list)
    size: int = 0
    cosine: float = 1.0


def sentences(count: int) -> list[str]:
    """Returns sentences of 3 to 60 words of this project's own pages."""
    words = " ".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))).split()
    rng = random.Random(0)
    lengths = rng.choices((3, 5, 8, 10, 12, 15, 20, 30, 60), k=count)
    starts = [rng.randrange(len(words) - 60) for _ in range(count)]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def seconds(worker: Remote, texts: list[str], size: int) -> float:
    """Returns the time of one call of a contender."""
    (found,) = worker.call("seconds", texts=texts, size=size, times=1)
    return float(found)


def prepared(name: str, worker: Remote, texts: list[str], exact: object) -> Measured:
    """Warms a contender up and finds its best size of batch and its worst cosine."""
    own = name in (OURS, OURS_INT8)
    vectors = numpy.array(worker.call("embed", texts=texts, size=SIZES[1]))
    found = Measured()
    if exact is not None:
        found.cosine = float((vectors * exact).sum(1).min())
    found.size = 0 if own else min(SIZES, key=lambda size: seconds(worker, texts, size))
    return found


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.encoders", description=__doc__)
    parser.add_argument("model", nargs="?", default="minilm", help="a name or a folder")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    model = resolve(arguments.model)
    texts = sentences(256)
    found: dict[str, Measured] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Remote] = {}
        for name, entry in {**FLOAT, **INT8}.items():
            log = RESULTS / f"worker-{name.replace(' ', '-')}.log"
            try:
                remote = Remote(python_of(entry), entry.module, model, cores(), log)
            except (UnavailableError, WorkerError) as why:
                print(f"left out: {name}: {why}")
                continue
            workers[name] = stack.enter_context(remote)
        exact = None
        if "transformers" in workers:
            exact = numpy.array(workers["transformers"].call("embed", texts=texts, size=1))
        for name, worker in workers.items():
            found[name] = prepared(name, worker, texts, exact)
        for _ in range(arguments.rounds):
            for name, worker in workers.items():
                found[name].many.append(seconds(worker, texts, found[name].size))
            for name, worker in workers.items():
                times = worker.call("seconds", texts=[ONE], size=1, times=20)
                found[name].one.append(statistics.median(times))
    report(found)


def report(found: dict[str, Measured]) -> None:
    """Prints the table and writes it to the results."""
    titles = ("contender", "256 texts", "ours over it", "one text", "ours over it", "batch", "cosine")
    print("".join(f"{title:>22}" if not place else f"{title:>14}" for place, title in enumerate(titles)))
    for name, measured in found.items():
        ours = found[OURS if name in FLOAT else OURS_INT8]
        cells = (
            f"{statistics.median(measured.many) * 1000:.0f} ms",
            f"{lead(ours.many, measured.many):.2f}x",
            f"{statistics.median(measured.one) * 1000:.2f} ms",
            f"{lead(ours.one, measured.one):.2f}x",
            str(measured.size or "-"),
            f"{measured.cosine:.5f}",
        )
        print(f"{name:>22}{''.join(f'{cell:>14}' for cell in cells)}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "found": {name: vars(measured) for name, measured in found.items()},
    }
    (RESULTS / "encoders.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def lead(ours: list[float], theirs: list[float]) -> float:
    """Returns the median over the rounds of their time by ours."""
    return statistics.median(their / own for own, their in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
