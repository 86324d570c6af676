"""Checks the process: how it starts and why it does not, and how it ends on a signal."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from decodery.cli.main import run
from tests.serving.live import ServerProcess, begin_request, read_stream, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
LONG: dict[str, Any] = {"prompt": "Once", "max_tokens": 480, "ignore_eos": True, "stream": True, "n": 16}


@contextmanager
def process(model: str, *options: str, **environment: str) -> Iterator[ServerProcess]:
    server = ServerProcess(model, "--kv-memory", "64MB", *options, environment=environment)
    try:
        yield server
    finally:
        server.close()


Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Returns a function that runs a server that does not start, and returns its only line."""

    def ran(*options: str, status: int = 2) -> str:
        assert run(("serve", *options)) == status
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.strip().splitlines()
        return line

    monkeypatch.setattr("decodery.serving.logs.log_to", lambda *_, **__: None)
    monkeypatch.setenv("COLUMNS", "1000")
    return ran


def test_a_server_says_where_it_is_and_drains_at_the_first_signal(folder: str, refused: Refused) -> None:
    """One process for several laws: starting one takes seconds."""
    with process(folder, "--drain-seconds", "20") as server:
        url = server.url
        assert next(line for line in server.lines if "http" in line).endswith(url)
        until(lambda: len(server.lines) >= 3)
        assert httpx.get(f"{url}/ready").json() == {"status": "ready"}
        # Another one cannot have the port.
        line = refused("-m", folder, "--port", str(server.port))
        assert str(server.port) in line
        with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=60) as answer:
            parts = answer.iter_raw()
            first = next(parts)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.poll() is None
            refusal = _refusal(url)
            stream = read_stream(answer.status_code, iter([first, *parts]))
        # What runs goes on to its end; what is new is refused.
        assert stream.done
        assert sorted(stream.finishes) == list(range(16))
        assert refusal in (None, 503)
        assert server.ended() == 0
        assert not any("Traceback" in line for line in server.lines)


def _refusal(url: str) -> int | None:
    """Returns the status of a new request while a server drains; None if it takes no connection."""
    for _ in range(200):
        try:
            answer = httpx.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 1}, timeout=10)
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            assert answer.headers["retry-after"]
            assert httpx.get(f"{url}/health").status_code == 200
            assert httpx.get(f"{url}/ready").status_code == 503
            return answer.status_code
        time.sleep(0.005)
    raise AssertionError("a server that drains takes requests")


@pytest.mark.slow
def test_past_the_drains_deadline_requests_end_in_an_error_and_the_status_is_0(folder: str) -> None:
    with process(folder, "--drain-seconds", "0.1", "--request-seconds", "50") as server:
        body = {**LONG, "n": 64}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
            parts = answer.iter_raw()
            first = next(parts)
            server.process.send_signal(signal.SIGTERM)
            stream = read_stream(answer.status_code, iter([first, *parts]))
        assert not stream.done
        assert stream.events[-1]["error"]["code"] == "draining"
        assert server.ended() == 0


@pytest.mark.slow
def test_the_second_signal_ends_it_at_once(folder: str) -> None:
    with process(folder, "--drain-seconds", "60") as server:
        connection = begin_request(server.port, {**LONG, "n": 64})
        assert connection.recv(100)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert server.ended(5) is not None
        connection.close()


def test_an_idle_server_ends_at_once_also_with_connections_that_wait(folder: str) -> None:
    with process(folder) as server:
        idle = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/health").status_code == 200
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.ended(10) == 0
            assert time.monotonic() - began < 8
        idle.close()
        half.close()


@pytest.mark.slow
def test_a_signal_while_the_model_is_opened_ends_it(folder: str) -> None:
    with process(folder) as server:
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.ended(20) in (0, -signal.SIGTERM)


def test_a_model_that_cannot_be_opened_is_one_line_and_status_1(refused: Refused, tmp_path: Path) -> None:
    missing = tmp_path / "nothing.gguf"
    assert "nothing.gguf" in refused("-m", str(missing), "--port", "0", status=1)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\x00" * 40)
    assert "broken.gguf" in refused("-m", str(broken), "--port", "0", status=1)


def test_without_keys_only_this_machine_is_served(refused: Refused, folder: str) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.1"):
        line = refused("-m", folder, "--port", "0", "--host", host)
        assert "keys" in line


def test_wrong_key_files_and_ports_are_one_line(
    refused: Refused, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# no key\n\n")
    assert "key" in refused("-m", folder, "--api-key-file", str(empty))
    assert "key file" in refused("-m", folder, "--api-key-file", str(tmp_path / "none"))
    assert "port" in refused("-m", folder, "--port", "70000")
    assert "a twice" in refused("-m", f"a={folder}", "--model", "a=other")
    assert "pings" in refused("-m", folder, "--pings", "x")
    assert "allow_origin" in refused("-m", folder, "--allow-origin", "https://a.example/path")
    monkeypatch.setenv("DECODERY_API_KEY", "ke y")
    assert "key" in refused("-m", folder, "--port", "0")


def test_keys_come_from_a_file_and_the_environment(folder: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# keys\nalpha \n\nbeta\r\n")
    with process(folder, "--api-key-file", str(keys), DECODERY_API_KEY="gamma") as server:
        for key, status in (("alpha", 200), ("beta", 200), ("gamma", 200), ("# keys", 401), ("delta", 401)):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == status
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        # No key and no prompt is in what the server writes.
        body = {"prompt": "a secret of mine", "max_tokens": 1, "wrong": "another secret"}
        httpx.post(f"{server.url}/v1/completions", json=body, headers={"x-api-key": "alpha"})
        body.pop("wrong")
        httpx.post(f"{server.url}/v1/completions", json=body, headers={"x-api-key": "alpha"})
        until(lambda: sum("/v1/completions" in line for line in server.lines) == 2)
        assert not any(word in line for line in server.lines for word in ("alpha", "gamma", "secret"))
