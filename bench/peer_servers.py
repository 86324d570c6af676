"""Measures other tools' servers beside ours: `python -m bench.peer_servers --peer NAME=COMMAND ...`.

A command names the model as `{model}` and the port as `{port}`, for example:

    --peer "llama.cpp=llama-server -m {model} --port {port} -t 2 -np 32 -c 16384"
    --peer "llama-cpp-python=python -m llama_cpp.server --model {model} --port {port} --n_threads 2"

All servers read the same file, run on the same two cores and are stopped (SIGSTOP) except in their turn. The
client asks for streams of `/v1/completions` and counts chunks, of which every server sends one a token.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shlex
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter, sleep

from decodery.weights.sources.locate import resolve

OURS = "decodery"
START = 120.0  # seconds a server may take to answer
WORDS = [
    "river",
    "stone",
    "morning",
    "garden",
    "letter",
    "window",
    "market",
    "bridge",
    "winter",
    "candle",
    "forest",
    "mirror",
    "harbour",
    "field",
]


class Peer:
    """Runs one server in a process group of its own."""

    def __init__(self, name: str, command: str, model: str, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        words = [word.format(model=model, port=self.port) for word in shlex.split(command)]
        output = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(words, stdout=output, stderr=output, start_new_session=True)
        output.close()
        deadline = monotonic() + START
        while not self._answers():
            if self._process.poll() is not None or monotonic() > deadline:
                self.close()
                raise SystemExit(f"{name} does not start; see {log}")
            sleep(0.2)
        self.pause()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def pause(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)


@dataclass
class Stream:
    """Holds the moments at which chunks came over one connection."""

    connection: socket.socket
    sent: float
    came: list[float] = field(default_factory=list)


@dataclass
class Load:
    """Holds what one turn took; times in seconds."""

    seconds: float
    streams: list[Stream]

    @property
    def rate(self) -> float:
        """Returns tokens per second."""
        return sum(len(stream.came) for stream in self.streams) / self.seconds

    @property
    def firsts(self) -> list[float]:
        """Returns each stream's time to its first token."""
        return [stream.came[0] - stream.sent for stream in self.streams]

    @property
    def gaps(self) -> list[float]:
        """Returns the times between a stream's tokens."""
        return [b - a for stream in self.streams for a, b in zip(stream.came, stream.came[1:], strict=False)]

    @property
    def whole(self) -> list[float]:
        """Returns each request's time."""
        return [stream.came[-1] - stream.sent for stream in self.streams]


def run(peer: Peer, count: int, tokens: int, turn: int) -> Load:
    """Asks for `count` streams at once, each with a prompt of its own."""
    began = perf_counter()
    streams = [_send(peer.port, _body(f"{turn} {i}", turn * 1000 + i, tokens)) for i in range(count)]
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.connection, selectors.EVENT_READ, stream)
        while selector.get_map():
            for key, _ in selector.select():
                _read(selector, key.data)
    load = Load(perf_counter() - began, streams)
    if not all(stream.came for stream in streams):
        raise SystemExit(f"{peer.name} refused a request")
    return load


def _body(mark: str, seed: int, tokens: int) -> bytes:
    words = [WORDS[(seed * 7 + i * (seed % 11 + 1)) % len(WORDS)] for i in range(60)]
    asked = {"model": OURS, "max_tokens": tokens, "temperature": 0.8, "seed": seed, "ignore_eos": True}
    return json.dumps({**asked, "stream": True, "prompt": " ".join([mark, *words])}).encode()


def _send(port: int, body: bytes) -> Stream:
    connection = socket.create_connection(("127.0.0.1", port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sent = perf_counter()
    connection.sendall(head.encode() + body)
    connection.setblocking(False)
    return Stream(connection, sent)


def _read(selector: selectors.BaseSelector, stream: Stream) -> None:
    data = stream.connection.recv(1 << 16)
    if not data:
        selector.unregister(stream.connection)
        stream.connection.close()
        return
    stream.came += [perf_counter()] * data.count(b'"text":')


def _milliseconds(times: Sequence[float], share: float) -> str:
    return f"{1000 * sorted(times)[min(int(share * len(times)), len(times) - 1)]:.0f}"


def measure(peers: Sequence[Peer], counts: Sequence[int], tokens: int, rounds: int) -> None:
    """Prints a table of the rounds' medians."""
    print(
        "| streams | server | tokens/s | ours over it | first p50 / p99 ms | token p50 / p99 | request p99 |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        loads: dict[str, list[Load]] = {peer.name: [] for peer in peers}
        for turn in range(rounds + 1):
            for peer in peers:
                peer.resume()
                load = run(peer, count, tokens if turn else 8, 100 * count + turn)
                peer.pause()
                if turn:
                    loads[peer.name].append(load)
        for name, found in loads.items():
            ratio = statistics.median(
                ours.rate / load.rate for ours, load in zip(loads[OURS], found, strict=True)
            )
            firsts = [time for load in found for time in load.firsts]
            gaps = [time for load in found for time in load.gaps]
            whole = [time for load in found for time in load.whole]
            print(
                f"| {count} | {name} | {statistics.median(load.rate for load in found):.0f} | {ratio:.2f} "
                f"| {_milliseconds(firsts, 0.5)} / {_milliseconds(firsts, 0.99)} "
                f"| {_milliseconds(gaps, 0.5)} / {_milliseconds(gaps, 0.99)} | {_milliseconds(whole, 0.99)} |"
            )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=Path("bench/results"))
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # The servers inherit it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    model = asked.model or str(resolve(None))
    asked.logs.mkdir(parents=True, exist_ok=True)
    ours = f"{shlex.quote(sys.executable)} -m decodery serve -m {OURS}={{model}} --port {{port}}"
    peers: list[Peer] = []
    try:
        for entry in (f"{OURS}={ours}", *asked.peer):
            name, _, command = entry.partition("=")
            peers.append(Peer(name, command, model, asked.logs / f"server-{name}.log"))
        measure(peers, [int(part) for part in asked.streams.split(",")], asked.tokens, asked.rounds)
    finally:
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    main()
