"""Runs the long forms of the server's laws: `python -m tests.serving.soak`.

A server process answers thousands of random requests, some of which are dropped; its memory, threads and
open files are watched. In this process, joined streams are compared with plain answers, answers of requests
together with those of each alone, while clients leave at random.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.cli.conftest import write_model
from tests.serving.conftest import CONTEXT, open_tiny
from tests.serving.live import LiveServer, ServerProcess, begin_request, serving
from tests.serving.test_load import leave
from tests.serving.twins import Asked, alone, answered, plain_features, random_asked, same, streamed

GROWTH = 20 << 20
"""The bytes by which a server's memory may grow, between the second quarter of a run and its end."""
BATCH = 50
POOLS = 12
"""The threads of the server's pools, which start when they are first needed."""


@dataclass
class Watched:
    """Holds samples of a process, each taken while no request runs."""

    memory: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def sample(self, process: int) -> None:
        """Adds the anonymous memory and swap of a process, and the numbers of its threads and open files."""
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
        parts = re.findall(r"^(?:Anonymous|SwapPss): +(\d+) kB", rollup, re.MULTILINE)
        self.memory.append(sum(int(part) for part in parts) << 10)
        self.threads.append(len(os.listdir(f"/proc/{process}/task")))
        self.files.append(len(os.listdir(f"/proc/{process}/fd")))

    def check(self) -> None:
        """Raises `AssertionError` if something grew. The first quarter is warm-up."""
        quarter = max(len(self.memory) // 4, 1)
        before = statistics.median(self.memory[quarter : 2 * quarter])
        growth = statistics.median(self.memory[-quarter:]) - before
        assert growth < GROWTH, f"memory grew by {growth / 2**20:.1f} MiB"
        assert max(self.files[quarter:]) <= max(self.files[: 2 * quarter]), f"files: {self.files}"
        assert max(self.threads) - self.threads[0] <= POOLS, f"threads: {self.threads}"

    def __str__(self) -> str:
        at = [f"{self.memory[i * (len(self.memory) - 1) // 8] / 2**20:.0f}" for i in range(9)]
        return f"MiB at each eighth {' '.join(at)}, {self.threads[-1]} threads, {self.files[-1]} files"


def load(folder: str, requests: int, seed: int) -> Watched:
    """Sends so many random requests to a server process, eight at once; drops every tenth."""
    source = random.Random(seed)
    listed = [feature for feature in plain_features(folder) if folder not in repr(feature.changes)]
    # A tokenizer keeps the texts that it has seen, which would look like a leak.
    pool_of = [random_asked(source, listed) for _ in range(500)]
    watched = Watched()
    server = ServerProcess(folder, "--kv-memory", "16MB")
    try:
        url, port = server.url, server.port
        for _ in range(requests // BATCH):
            batch = [(source.choice(pool_of), source.random()) for _ in range(BATCH)]
            with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
                for done in [pool.submit(_one, client, port, *one) for one in batch]:
                    done.result()
            time.sleep(0.05)
            watched.sample(server.process.pid)
        assert httpx.get(f"{url}/ready").status_code == 200
        assert not any("Traceback" in line for line in server.lines)
    finally:
        server.close()
    return watched


def _one(client: httpx.Client, port: int, asked: Asked, luck: float) -> None:
    body = {**asked.body, "stream": luck < 0.5}
    if luck > 0.9:
        connection = begin_request(port, body)
        time.sleep((luck - 0.9) ** 2 * 5)
        leave(connection)
        return
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code in (200, 400), answer.text


def compare_streams(server: LiveServer, asked: list[Asked]) -> None:
    """Raises `AssertionError` unless each joined stream is the plain answer."""
    for one in asked:
        assert streamed(server, one) == answered(server, one), one


def compare_together(
    server: LiveServer, folder: str, asked: list[Asked], disconnects: int, seed: int
) -> None:
    """Raises `AssertionError` unless each answer, among others and clients that leave, is the one alone."""
    library = open_tiny(folder, second_models={folder: folder})
    expected = [alone(library, one) for one in asked]
    source = random.Random(seed)

    def ask(place: int) -> None:
        time.sleep(source.random() * 0.3)
        found = (streamed if place % 2 else answered)(server, asked[place])
        assert same(found, expected[place]), (asked[place], found, expected[place])

    def come_and_go() -> None:
        one = source.choice(asked)
        connection = begin_request(server.port, {**one.body, "stream": source.random() < 0.5})
        time.sleep(source.random() ** 3 * 0.2)
        leave(connection)

    jobs: list[Callable[[], None]] = [lambda place=place: ask(place) for place in range(len(asked))]  # type: ignore[misc]
    jobs += [come_and_go] * disconnects
    source.shuffle(jobs)
    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    server.settle()


def main() -> None:
    """Runs all, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--together", type=int, default=640)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), context=CONTEXT)
        source = random.Random(given.seed)
        listed = plain_features(folder)
        for cache in (True, False):
            asked = [random_asked(source, listed) for _ in range(given.together)]
            began = time.monotonic()
            with serving(open_tiny(folder, prefix_cache=cache, second_models={folder: folder})) as server:
                compare_streams(server, asked[: given.streams])
                compare_together(server, folder, asked, given.disconnects, given.seed)
            _say(
                f"cache {cache}: {given.streams} streams, {given.together} requests together and"
                f" {given.disconnects} that left: equal, {time.monotonic() - began:.0f} s"
            )
        if not given.requests:
            return
        began = time.monotonic()
        watched = load(folder, given.requests, given.seed)
        _say(f"{given.requests} requests: {watched}, {time.monotonic() - began:.0f} s")
        watched.check()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
