"""Measures how fast questions with options are asked, beside lm-eval (`python -m bench.evaluation`).

Questions with four options and five shots each, which are drawn for each question, go through the default
model here and through lm-eval over transformers, whose precision and size of batch are the fastest of a few.
Both run in turn, part after part, each in its own process; loading the model is not counted, all else is.
What counts is the median of the ratios within a part. The accuracies are printed since both must ask the
same; the shots and the precision differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers.catalogue import Entry
from bench.peers.conversions import weights_of
from bench.peers.environments import UnavailableError, python_of
from bench.peers.machine import cores, processor
from bench.remote import ROOT, Remote, WorkerError
from decodery.weights.sources.locate import resolve

RESULTS = ROOT / "bench" / "results"
OURS = "decodery"
DTYPES = ("float32", "bfloat16")
BATCHES = (1, 8, 32)
MARKS = "ABCD"
PROBED = 8


def rows(count: int, seed: int, name: str) -> list[dict[str, Any]]:
    """Returns questions of 15 to 60 words of this project's own pages, with options of 1 to 8 words."""
    words = " ".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))).split()
    rng = random.Random(seed)

    def text(least: int, most: int) -> str:
        start = rng.randrange(len(words) - most)
        return " ".join(words[start : start + rng.randint(least, most)])

    return [
        {
            "id": f"{name}{number}",
            "question": text(15, 60),
            "choices": {"text": [text(1, 8) for _ in MARKS], "label": list(MARKS)},
            "answerKey": rng.choice(MARKS),
        }
        for number in range(count)
    ]


def write_part(folder: Path, questions: list[dict[str, Any]], pool: list[dict[str, Any]]) -> str:
    """Writes questions, and those that the shots are drawn from, and returns the folder."""
    folder.mkdir()
    for name, content in (("test", questions), ("train", pool)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


def entry(dtype: str) -> Entry:
    """Returns lm-eval over transformers in a precision."""
    module = "bench.contenders.evaluation.lm_eval"
    return Entry(f"lm-eval {dtype}", module, dtype, dtype, ".venv-peers-evaluation", "evaluation", "lm-eval")


def fastest(workers: dict[str, Remote], probe: dict[str, Any]) -> tuple[str, int]:
    """Returns the precision and the size of batch with which lm-eval is fastest on a few questions."""
    times = {}
    for dtype, worker in workers.items():
        for batch in BATCHES:
            try:
                times[dtype, batch] = float(worker.call("evaluate", **probe, batch=batch)["seconds"])
            except WorkerError as why:
                print(f"left out: lm-eval {dtype}, batches of {batch}: {why}")
                break
            print(f"lm-eval {dtype}, batches of {batch}: {times[dtype, batch]:.1f} s")
    if not times:
        raise SystemExit("lm-eval did not answer")
    return min(times, key=lambda key: times[key])


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation", description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--letters", action="store_true", help="list the options, and compare their letters")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    model, threads = resolve(None), cores()
    size = max(arguments.questions // arguments.parts, 1)
    pool = rows(200, 1, "shot")
    asked: dict[str, Any] = {"shots": arguments.shots, "letters": arguments.letters}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        questions = rows(size * arguments.parts + PROBED, 2, "question")
        probe = {**asked, "data": write_part(folder / "probe", questions[-PROBED:], pool)}
        peers = {}
        for one in map(entry, DTYPES):
            try:
                path = weights_of(one, model, "default")
                log = RESULTS / f"worker-{one.name.replace(' ', '-')}.log"
                remote = Remote(python_of(one), one.module, path, threads, log)
            except UnavailableError as why:
                raise SystemExit(str(why)) from why
            peers[one.form] = stack.enter_context(remote)
        dtype, batch = fastest(peers, probe)
        own = Entry(OURS, "bench.contenders.evaluation.decodery", "gguf", "")
        log = RESULTS / "worker-decodery-evaluation.log"
        ours = stack.enter_context(Remote(python_of(own), own.module, model, threads, log))
        ours.call("evaluate", **probe, batch=0)
        found: dict[str, list[dict[str, float]]] = {OURS: [], "lm-eval": []}
        for part in range(arguments.parts):
            data = write_part(folder / str(part), questions[part * size : (part + 1) * size], pool)
            found[OURS].append(ours.call("evaluate", **asked, data=data, batch=0))
            found["lm-eval"].append(peers[dtype].call("evaluate", **asked, data=data, batch=batch))
    report(found, size, f"{dtype}, batches of {batch}", asked)


def report(found: dict[str, list[dict[str, float]]], size: int, peer: str, asked: dict[str, Any]) -> None:
    """Prints the table and writes it to the results."""
    parts = len(found[OURS])
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found[OURS], found["lm-eval"], strict=True)]
    print(f"{parts * size} questions, {asked['shots']} shots, lm-eval in {peer}")
    for name, times in found.items():
        seconds = sum(one["seconds"] for one in times)
        accuracy = statistics.mean(one["accuracy"] for one in times)
        print(
            f"{name:>10} {seconds:10.1f} s {parts * size / seconds:8.2f} questions/s  accuracy {accuracy:.3f}"
        )
    print(f"ours over lm-eval: {statistics.median(ratios):.2f}x, {min(ratios):.2f}x to {max(ratios):.2f}x")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "questions": parts * size,
        **asked,
        "lm-eval": peer,
        "parts": found,
    }
    (RESULTS / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
