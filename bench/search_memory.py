"""Measures the time and the peak memory of an index of many lines: `python -m bench.search_memory [LINES]`.

Three fresh processes make the index, search it, and search it by words too. Each prints its times in seconds
and the peak of its memory; `base` is that of a process that has only loaded the model.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.remote import ROOT

LINES = 100_000
WORDS = 12

_PROGRAM = """
import json, sys, time
from bench.worker import memory
from decodery import LLM
from decodery.search import SearchIndex
folder, file, step = sys.argv[1:]
llm = LLM("minilm")
llm.embed(["a text"])
found = {"base": memory()}
started = time.perf_counter()
with SearchIndex(folder, llm, by="lines") as index:
    if step == "update":
        index.update([file])
    else:
        index.search("w1 w2 w3", hybrid=step == "hybrid")
    found |= {"seconds": time.perf_counter() - started, "peak": memory(), "chunks": len(index)}
    if step != "update":
        started = time.perf_counter()
        index.search("w4 w5 w6", hybrid=step == "hybrid")
        found["next_seconds"] = time.perf_counter() - started
print(json.dumps(found))
"""


def main(lines: int) -> None:
    """Prints a line of JSON for each of the three processes."""
    drawn = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "lines.txt")
        with file.open("w", encoding="utf-8") as out:
            for _ in range(lines):
                out.write(" ".join(f"w{drawn.randrange(5000)}" for _ in range(WORDS)) + "\n")
        for step in ("update", "search", "hybrid"):
            command = [sys.executable, "-c", _PROGRAM, f"{place}/index", str(file), step]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT, text=True)
            print(step, done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else LINES)
