"""Runs servers for tests: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from decodery import LLM
from decodery.engine.statistics import Statistics
from decodery.serving.models import ModelSource
from decodery.serving.run import http_server, listen, loop_factory
from decodery.serving.service import Service
from decodery.serving.settings import RequestLimits, ServerSettings
from tests.conversations.models import scripted

T = TypeVar("T")
SOURCE = Path(__file__).parents[2] / "src"
NAME = "tiny"


class LiveServer:
    """Serves a model at a port, by default a free one, on an event loop in a thread of this process."""

    def __init__(
        self,
        llm: LLM,
        settings: ServerSettings,
        sources: Sequence[ModelSource] = (),
        memory: int | None = None,
        port: int = 0,
    ) -> None:
        self.llm = llm
        self.settings = settings
        self._sources = sources or [ModelSource(NAME, lambda: self.llm)]
        self._memory = memory
        self._listener = listen(settings.host, port)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(30)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.service = Service(self.settings, self._sources, self._memory)
        self.service.start(self.loop)
        await self.service.models.open_pinned()
        self._server = http_server(self.service)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            await asyncio.sleep(0.001)
        self._up.set()
        await serving
        await self.service.stop()

    def close(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()
        assert not self._thread.is_alive()

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def complete(self, **body: Any) -> dict[str, Any]:
        """Returns the answer of `/v1/completions`, which must be 200."""
        answer = self.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, **body: Any) -> dict[str, Any]:
        """Returns the error of a request of `/v1/completions` that is refused with 400."""
        answer = self.post("/v1/completions", body)
        assert answer.status_code == 400, answer.text
        found: dict[str, Any] = answer.json()["error"]
        return found

    def stream(self, **body: Any) -> Stream:
        """Returns the stream of `/v1/completions`, read to its end."""
        return self.stream_of("/v1/completions", **body)

    def stream_of(self, path: str, **body: Any) -> Stream:
        with self.client.stream("POST", path, json={**body, "stream": True}) as answer:
            return read_stream(answer.status_code, answer.iter_raw())

    def on_worker(self, function: Callable[[], T]) -> T:
        """Returns the result of a function that the worker's thread calls between two steps."""
        return self.awaited(self.service.worker.call, function)

    def awaited(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns the result of a coroutine function that runs on the server's loop."""
        return asyncio.run_coroutine_threadsafe(function(*arguments), self.loop).result(30)

    def statistics(self) -> Statistics:
        return self.on_worker(self.llm.engine.statistics)

    def is_idle(self) -> bool:
        """True if nothing is left of any request."""
        admission = self.service.admission
        return not (self._is_running() or self.service.active or admission.inside or admission.queued)

    def _is_running(self) -> bool:
        if self.llm.is_encoder:
            batches = self.service.batches
            return batches.batch_since is not None or batches.waiting(self.llm.encoder.runner) > 0
        s = self.statistics()
        return bool(s.pages_used or s.running or s.waiting)

    def settle(self, seconds: float = 10.0) -> None:
        """Waits until nothing is left of any request, and checks the page table."""
        until(self.is_idle, seconds)
        if not self.llm.is_encoder:
            self.on_worker(self.llm.engine.check_integrity)


@dataclass
class Stream:
    """Holds what came over a stream: its raw bytes, comments, and events; `done` is True after [DONE]."""

    status: int
    raw: bytes = b""
    comments: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for event in self.events for choice in event.get("choices", ())]

    def text(self, index: int = 0) -> str:
        return "".join(c["text"] for c in self.choices if c["index"] == index)

    @property
    def finishes(self) -> dict[int, str]:
        """Returns the reason of each choice; fails if one came twice."""
        found = [(c["index"], c["finish_reason"]) for c in self.choices if c["finish_reason"] is not None]
        assert len(dict(found)) == len(found)
        return dict(found)


def read_stream(status: int, parts: Iterator[bytes]) -> Stream:
    """Returns a stream by the rules of server-sent events, of which a blank line ends an event."""
    raw = b"".join(parts)
    stream = Stream(status, raw)
    data: list[str] = []
    for line in raw.decode("utf-8").split("\n"):
        if line.startswith(":"):
            stream.comments.append(line)
        elif line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif line:
            raise AssertionError(f"not an event: {line!r}")
        elif data:
            assert not stream.done
            text = "\n".join(data)
            data = []
            if text == "[DONE]":
                stream.done = True
            else:
                stream.events.append(json.loads(text))
    assert not data
    return stream


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition does not come to hold"
        time.sleep(0.002)


@contextmanager
def serving(
    llm: LLM, limits: RequestLimits | None = None, *, port: int = 0, **settings: Any
) -> Iterator[LiveServer]:
    """Serves a model inside the context; at the end nothing may be left of any request."""
    server = LiveServer(llm, ServerSettings(limits=limits or RequestLimits(), **settings), port=port)
    try:
        yield server
        server.settle()
    finally:
        server.close()


@contextmanager
def saying(server: LiveServer, text: str) -> Iterator[None]:
    """Makes the model write this text in the next answer, where nothing bans it."""
    before = server.llm.default_params
    server.llm.default_params = scripted(server.llm.tokenizer, text)
    try:
        yield
    finally:
        server.llm.default_params = before


@dataclass(frozen=True)
class Raw:
    """Holds the answer to a request over a plain socket."""

    status: int
    headers: dict[str, str]
    body: bytes


def raw_request(port: int, lines: Sequence[bytes], body: bytes = b"") -> Raw:
    """Sends these lines as the head of a request, byte for byte, and returns the answer."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *others = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in others)
    return Raw(int(first.split()[1]), {name.lower(): value for name, value in pairs}, rest)


def begin_request(port: int, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    """Sends a request over a socket of its own, and returns the socket without reading."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


class ServerProcess:
    """Runs `decodery serve` as a process, on a free port."""

    def __init__(self, model: str, *options: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "decodery", "serve", "-m", model, "--port", "0", "--threads", "1"]
        paths = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **paths, **(environment or {})},
        )
        self.lines: list[str] = []
        self._address: re.Match[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            self._address = self._address or re.search(r"http://127\.0\.0\.1:(\d+)$", self.lines[-1])

    @property
    def port(self) -> int:
        """Returns the port, once the server has told it."""
        until(lambda: self._address is not None or self.process.poll() is not None, 60)
        assert self._address is not None, self.lines
        return int(self._address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ended(self, seconds: float = 30) -> int:
        """Returns the exit status, after waiting for it."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
