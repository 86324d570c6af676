"""Tests in processes of their own: imports, pipes, encodings, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from decodery.version import __version__
from tests.cli.conftest import write_model

GENERATE = ["generate", "hello", "--ignore-eos", "--max-tokens", "100"]


def process(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    return subprocess.Popen(
        [sys.executable, "-m", "decodery", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
        # A background job ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_help_version_and_wrong_flags_import_no_heavy_library() -> None:
    heavy = ("torch", "rich", "tokenizers", "numpy", "huggingface_hub", "decodery.llm")
    code = f"""
import sys
from decodery.cli.main import run
assert run(["--version"]) == 0
for command in ("generate", "chat", "score", "explain", "compare", "pull", "models", "inspect"):
    assert run([command, "--help"]) == 0, command
assert run(["--help"]) == 0
assert run(["generate", "x", "--top-p", "2"]) == 2
assert run(["generate", "x", "--no-such-flag"]) == 2
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"decodery {__version__}\n")


def test_a_closed_pipe_ends_it_silently(model: str) -> None:
    started = process(*GENERATE, "-m", model)
    assert started.stdout is not None
    started.stdout.close()
    _, err = started.communicate(timeout=60)
    assert (started.returncode, err) == (141, b"")


def redirected(redirection: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command line with streams that the shell redirects or closes."""
    command = f'exec "$0" -m decodery "$@" {redirection}'
    return subprocess.run(["sh", "-c", command, sys.executable, *arguments], capture_output=True)


def test_a_closed_stdout_is_one_line(model: str) -> None:
    done = redirected(">&-", *GENERATE, "-m", model)
    assert done.returncode == 1
    assert done.stderr == b"decodery: there is no standard output: it is closed\n"


def test_what_belongs_on_a_closed_stderr_never_comes_on_stdout() -> None:
    done = redirected("2>&-", "generate", "x", "-m", "./no-such-model", "--debug")
    assert (done.returncode, done.stdout) == (1, b"")


def test_an_interrupt_while_modules_are_imported_leaves_130_silently() -> None:
    code = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from decodery.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_full_disk_is_one_line(model: str) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "decodery", *GENERATE, "-m", model]
    with full.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr.startswith(b"decodery: OSError: ")
    assert done.stderr.count(b"\n") == 1


def test_text_is_utf8_whatever_the_locale_says(model: str) -> None:
    out, err = process("score", "é", "-m", model, "--json").communicate(timeout=60)
    assert '"text": "é"' in out.decode("utf-8")
    assert err == b""


def test_an_interrupt_keeps_what_was_written_and_leaves_130(tmp_path: Path) -> None:
    # A context that takes far longer to fill than the interrupt takes to arrive.
    model = write_model(tmp_path, context=50_000)
    letters = [f"--logit-bias={token}=100" for token in range(64, 90)]
    started = process("generate", "x", "--ignore-eos", "--max-tokens=none", *letters, "-m", model)
    assert started.stdout is not None
    first = started.stdout.read(1)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert first.isalpha()
    assert out.endswith(b"\n")
    assert (started.returncode, err) == (130, b"")
