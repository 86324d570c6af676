"""Tests the commands that may ask a server in place of loading a model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, write_model
from tests.serving.conftest import open_tiny
from tests.serving.live import SOURCE, LiveServer, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("served"), context=512)


@pytest.fixture(scope="module")
def server(folder: str) -> Iterator[LiveServer]:
    with serving(open_tiny(folder)) as found:
        yield found


COMMANDS: dict[str, list[str]] = {
    "generate": ["generate", "Hello", "--seed", "3", "--max-tokens", "12"],
    "generate to the end of the context": ["generate", "x" * 505, "--seed", "3"],
    "generate several": ["generate", "Hello", "--seed", "3", "--max-tokens", "6", "--n", "3"],
    "generate the best": ["generate", "Hello", "--seed", "3", "--max-tokens", "6", "--best-of", "3"],
    "generate JSON": ["generate", "Hello", "--seed", "3", "--max-tokens", "6", "--json", "--logprobs", "2"],
    "generate a reply": [
        "generate",
        "Hi",
        "--chat",
        "--system",
        "Be kind.",
        "--seed",
        "3",
        "--max-tokens",
        "6",
    ],
    "generate beams": ["generate", "Hello", "--strategy", "beam", "--num-beams", "3", "--max-tokens", "6"],
    "generate by a grammar": ["generate", "Hello", "--choice", "yes", "--choice", "no", "--seed", "1"],
    "score": ["score", "some text"],
    "score JSON": ["score", "some text", "--json"],
    "explain": ["explain", "Hello", "--seed", "1", "--max-tokens", "4", "--top", "3"],
    "explain beams": [
        "explain",
        "Hello",
        "--strategy",
        "beam",
        "--num-beams",
        "2",
        "--max-tokens",
        "4",
        "--seed",
        "1",
    ],
    "explain JSON": ["explain", "Hello", "--seed", "1", "--max-tokens", "4", "--json", "--top-k", "5"],
    "compare JSON": ["compare", "Hello", "--seed", "1", "--max-tokens", "4", "--json"],
    "compare beams": [
        *(
            "compare",
            "Hello",
            "--seed",
            "1",
            "--max-tokens",
            "9",
            "--strategies",
            "beam,diverse,stochastic-beam",
        ),
        *("--with", "all: strategy=beam num-beams=4 num-return-sequences=4 length-penalty=2"),
    ],
}


def untimed(text: str) -> str:
    """Returns JSON or a table without the figures of time."""
    text = re.sub(r'"(\w*seconds|tokens_per_second)": [\d.e+-]+', r'"\1": 0', text)
    text = re.sub(r" +\d+\.\d\d(  (?: *stop| *length))$", r" 0\1", text, flags=re.MULTILINE)
    return re.sub(r"in [\d.]+ s in one batch \([\d.]+ ", "in 0 s in one batch (0 ", text)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_server_gives_the_bytes_that_a_loaded_model_gives(
    decodery: Run, folder: str, server: LiveServer, arguments: list[str]
) -> None:
    settings = ["--dtype", "float32", "--kv-memory", "16MB"]
    here = decodery(*arguments, "-m", folder, *settings)
    there = decodery(*arguments, "--server", server.url)
    assert (here.status, here.err) == (0, there.err)
    assert untimed(there.out) == untimed(here.out)
    assert there.status == 0


def test_a_conversation_is_that_of_a_loaded_model(decodery: Run, folder: str, server: LiveServer) -> None:
    arguments = ["chat", "--seed", "5", "--max-tokens", "8", "--system", "Be kind."]
    talk = b"Hello\n/params top_k=4\nAnd now?\n" + b"y" * 400 + b"\n"
    here = decodery(*arguments, "-m", folder, "--dtype", "float32", "--kv-memory", "16MB", stdin=talk)
    there = decodery(*arguments, "--server", server.url, stdin=talk)
    assert here.out
    assert (there.status, there.out, there.err) == (here.status, here.out, here.err)


def test_pages_are_those_of_a_loaded_model_but_for_its_name(
    decodery: Run, folder: str, server: LiveServer, tmp_path: Path
) -> None:
    pages = {}
    for place, options in {
        "here": ["-m", folder, "--dtype", "float32"],
        "there": ["--server", server.url],
    }.items():
        file = tmp_path / f"{place}.html"
        ran = decodery("explain", "Hello", "--seed", "2", "--max-tokens", "3", "--html", str(file), *options)
        assert ran.status == 0
        pages[place] = file.read_text().replace(Path(folder).name, "MODEL").replace(">tiny<", ">MODEL<")
    assert pages["there"].replace("tiny", "MODEL") == pages["here"].replace("tiny", "MODEL")


def test_the_environment_names_the_server_and_its_key(
    decodery: Run, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["generate", "Hello", "--max-tokens", "1", "--temperature", "0"]
    with serving(open_tiny(folder), keys=("secret", "other")) as server:
        monkeypatch.setenv("DECODERY_SERVER", server.url)
        refused = decodery(*arguments)
        assert refused.status == 1
        assert "--api-key-file or DECODERY_API_KEY" in refused.err
        monkeypatch.setenv("DECODERY_API_KEY", "secret")
        assert decodery(*arguments).status == 0
        # An empty flag asks for a model here.
        assert decodery(*arguments, "--server", "", "-m", folder).status == 0
        monkeypatch.setenv("DECODERY_API_KEY", "wrong")
        assert decodery(*arguments).status == 1
        keys = tmp_path / "keys"
        keys.write_text("# mine\n\nother\nsecret\n")
        assert decodery(*arguments, "--api-key-file", str(keys)).status == 0


def test_what_does_not_go_with_a_server_is_one_line(
    decodery: Run, folder: str, server: LiveServer, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# no key\n")
    wrong = {
        ("--server", server.url, "--backend", "torch"): (2, "--backend"),
        ("--server", server.url, "--kv-memory", "1MB"): (2, "--kv-memory"),
        ("--server", server.url, "--packed-cache"): (2, "--packed-cache"),
        ("--server", server.url, "-m", folder): (2, "path"),
        ("--server", server.url, "-m", "nowhere/model.gguf"): (2, "path"),
        ("--server", server.url, "-m", "other"): (1, "there is tiny"),
        ("--server", "localhost"): (2, "address"),
        ("--server", "http://127.0.0.1:1"): (1, "no server answers at http://127.0.0.1:1"),
        ("--api-key-file", str(empty)): (2, "--server"),
        ("--server", server.url, "--api-key-file", str(empty)): (1, "no key"),
        ("--server", server.url, "--api-key-file", str(tmp_path / "none")): (1, "cannot be read"),
        ("--server", server.url, "--strategy", "contrastive-decoding", "--amateur", folder): (2, "offered"),
        ("--server", server.url, "--stop-token-ids", "100000"): (2, "stop_token_ids"),
    }
    for options, (status, words) in wrong.items():
        ran = decodery("generate", "Hello", *options)
        assert (ran.status, ran.out) == (status, ""), options
        assert words in ran.err
        assert ran.err.count("\n") == 1


def test_an_interrupt_closes_the_connection(server: LiveServer) -> None:
    command = [sys.executable, "-m", "decodery", "generate", "Hello", "--ignore-eos", "--max-tokens", "500"]
    for _ in range(20):
        with subprocess.Popen(
            [*command, "--server", server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            # A shell ignores the signal in what it runs in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        # On a busy machine the text may end before the signal comes.
        if process.returncode:
            break
    assert process.returncode == 130
    assert b"Traceback" not in errors
    server.settle()


def test_a_server_that_stops_in_an_answer_is_one_line(decodery: Run, folder: str) -> None:
    with serving(open_tiny(folder)) as server:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "decodery", "generate", "Hello", "--ignore-eos"),
                *("--max-tokens", "500", "--server", server.url),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        assert process.stdout is not None
        process.stdout.read(1)
        for active in list(server.service.active):
            server.loop.call_soon_threadsafe(active.fail, _stopping())
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "stopping" in errors


def _stopping() -> Exception:
    from decodery.serving.errors import ApiError

    return ApiError(503, "the server is stopping")
