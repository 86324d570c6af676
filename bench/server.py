"""Measures what the server costs above the library: `python -m bench.server [MODEL]`.

Server, client and library run on the same two cores, in turns. The client reads bytes from plain sockets and
tells how much time it takes itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

from decodery import LLM, GenerationParams
from decodery.weights.sources.locate import resolve

NAME = "bench"


class Served:
    """Runs `decodery serve` on a free port."""

    def __init__(self, model: str) -> None:
        command = [sys.executable, "-m", "decodery", "serve", "-m", f"{NAME}={model}", "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip()):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the server does not start")
        # Each request writes a line to the log.
        subprocess.Popen(["cat"], stdin=self._process.stderr, stdout=subprocess.DEVNULL)

    def loop_time(self) -> float:
        """Returns the seconds of CPU time of the event loop's thread."""
        process = self._process.pid
        return int(Path(f"/proc/{process}/task/{process}/schedstat").read_text().split()[0]) / 1e9

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@dataclass
class Stream:
    """Holds what came over one connection; times in seconds."""

    connection: socket.socket
    sent: float
    tail: bytes = b""
    chunks: int = 0
    first: float | None = None


@dataclass
class Run:
    """Holds the times of streams that ran together."""

    tokens: int
    seconds: float
    client: float
    loop: float
    firsts: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Returns tokens per second."""
        return self.tokens / self.seconds


def bodies(prompts: Sequence[Sequence[int]], tokens: int) -> list[bytes]:
    """Returns the requests for these prompts."""
    asked = {
        "model": NAME,
        "max_tokens": tokens,
        "temperature": 0.8,
        "seed": 1,
        "ignore_eos": True,
        "speculate": "none",
    }
    return [json.dumps({**asked, "stream": True, "prompt": list(prompt)}).encode() for prompt in prompts]


def send(port: int, body: bytes, route: str = "/v1/completions") -> Stream:
    """Sends a request on a connection of its own."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = f"POST {route} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    sent = perf_counter()
    connection.sendall(head.encode() + body)
    connection.setblocking(False)
    return Stream(connection, sent)


def over_http(served: Served, prompts: Sequence[Sequence[int]], tokens: int) -> Run:
    """Runs a stream for each prompt at once."""
    asked = bodies(prompts, tokens)
    loop, cpu, began = served.loop_time(), process_time(), perf_counter()
    streams = [send(served.port, body) for body in asked]
    read_all(streams)
    seconds = perf_counter() - began
    run = Run(tokens * len(prompts), seconds, process_time() - cpu, served.loop_time() - loop)
    for stream in streams:
        # A chunk for each token, or for several that became text together; and the one that ends.
        assert 1 < stream.chunks <= tokens + 1, stream.chunks
        assert b"[DONE]" in stream.tail, stream.tail
        assert stream.first is not None
        run.firsts.append(stream.first - stream.sent)
    return run


def read_all(streams: Sequence[Stream]) -> None:
    """Reads the streams to their ends."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.connection, selectors.EVENT_READ, stream)
        left = len(streams)
        while left:
            for key, _ in selector.select():
                left -= _read(selector, key.data)


def _read(selector: selectors.BaseSelector, stream: Stream) -> bool:
    """Takes what has come; True at the end."""
    data = stream.connection.recv(1 << 16)
    if not data:
        selector.unregister(stream.connection)
        stream.connection.close()
        return True
    found = data.count(b"data: {")
    if found and stream.first is None:
        stream.first = perf_counter()
    stream.chunks += found
    stream.tail = (stream.tail + data)[-100:]
    return False


def in_process(llm: LLM, prompts: Sequence[Sequence[int]], tokens: int) -> Run:
    """Runs the same in the library."""
    params = GenerationParams(max_tokens=tokens, temperature=0.8, seed=1, ignore_eos=True, speculate=None)
    began = perf_counter()
    llm.generate([list(prompt) for prompt in prompts], params, progress=False)
    return Run(tokens * len(prompts), perf_counter() - began, 0, 0)


def first_token(llm: LLM, prompt: Sequence[int]) -> float:
    """Returns the seconds to the first token in the library."""
    params = GenerationParams(max_tokens=2, temperature=0.8, seed=1, ignore_eos=True, speculate=None)
    began = perf_counter()
    events = llm.stream(list(prompt), params)
    next(events)
    seconds = perf_counter() - began
    events.close()
    return seconds


class Prompts:
    """Makes prompts of which no two share a page of the prefix cache."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._count = 0

    def next(self, count: int, length: int) -> list[list[int]]:
        found = []
        for _ in range(count):
            self._count += 1
            first = [100 + self._count // 1000, 100 + self._count % 1000]
            found.append([*first, *(100 + (7 * i) % (self._vocabulary // 2) for i in range(length - 2))])
        return found


def measure(model: str, streams: Sequence[int], tokens: int, rounds: int) -> None:
    """Prints a table of the rounds' medians."""
    llm = LLM(model)
    prompts = Prompts(llm.model.vocab_size)
    served = Served(model)
    try:
        for warm in (1, streams[-1]):
            over_http(served, prompts.next(warm, 32), 8)
            in_process(llm, prompts.next(warm, 32), 8)
        print("| streams | HTTP tokens/s | in process | ratio | loop ms/token | client ms/token |")
        print("|---|---|---|---|---|---|")
        for count in streams:
            http, own = [], []
            for _ in range(rounds):
                http.append(over_http(served, prompts.next(count, 32), tokens))
                own.append(in_process(llm, prompts.next(count, 32), tokens))
            ratio = statistics.median(h.rate / o.rate for h, o in zip(http, own, strict=True))
            rates = [statistics.median(run.rate for run in runs) for runs in (http, own)]
            loop = 1000 * statistics.median(run.loop / run.tokens for run in http)
            client = 1000 * statistics.median(run.client / run.tokens for run in http)
            print(f"| {count} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.2f} | {loop:.3f} | {client:.3f} |")
        added = []
        for _ in range(rounds * 5):
            mine = over_http(served, prompts.next(1, 64), 2).firsts[0]
            added.append(1000 * (mine - first_token(llm, prompts.next(1, 64)[0])))
        print(
            f"\nadded time to the first token: p50 {statistics.median(added):.2f} ms, max {max(added):.2f} ms"
        )
    finally:
        served.close()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # The server inherits it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    model = asked.model or str(resolve(None))
    measure(model, [int(part) for part in asked.streams.split(",")], asked.tokens, asked.rounds)


if __name__ == "__main__":
    main()
