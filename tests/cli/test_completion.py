"""Checks the completion of command lines, in this process and in real shells."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from decodery.cli.candidates import candidates, typed_line
from decodery.cli.commands.complete import complete, names
from decodery.cli.flags.generation_flags import FLAGS
from decodery.cli.flags.object_flags import STRATEGIES
from decodery.cli.main import app
from decodery.cli.shell_scripts import SCRIPTS
from tests.cli.conftest import Run

LIMIT = 60.0
PROGRAM: Any = typer.main.get_command(app)
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}"))
    for name in SCRIPTS
]
# What is typed before the tabulator, and the last word that it becomes.
TYPED = {
    "gen": "generate",
    "generate --num-ret": "--num-return-sequences",
    "generate --strategy=be": "--strategy=beam",
    "generate -m org/name:fir": "org/name:first.gguf",
    "inspect my\\ models/bi": "my models/big one.gguf",
    "inspect ~/my\\ models/bi": "{home}/my models/big one.gguf",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a home, the working folder, with models in the caches and in a folder of its own."""
    for name in (
        *("cache/models/tiny/tiny.gguf", "cache/packed/some.packed", "my models/big one.gguf"),
        *("hub/models--org--name/snapshots/abc/first.gguf", "hub/models--org--name/snapshots/abc/other.gguf"),
        *("notes.txt", ".hidden"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(*words: str) -> list[str]:
    return [found.text for found in candidates(PROGRAM, words, names())]


def test_the_first_word_is_a_command_that_the_help_lists(decodery: Run) -> None:
    found = candidates(PROGRAM, [""], names())
    listed = decodery("--help").out
    assert {"generate", "chat", "serve"} <= {one.text for one in found}
    assert all(f"  {one.text} " in listed and one.help for one in found)
    assert texts("", "x") == []


@pytest.mark.parametrize("command", ["generate", "chat", "explain"])
def test_every_flag_of_a_command_is_offered_until_it_is_given(command: str) -> None:
    everything = set(texts(command, "--"))
    spelled = {f"--{name.replace('_', '-')}" for name in FLAGS}
    if command == "chat":
        assert "--echo" not in everything
        spelled -= {"--echo"}
    assert spelled | {"--model", "--help", "--debug"} <= everything
    assert "--top-k" not in texts(command, "--top-k", "3", "--")
    assert "--stop" in texts(command, "--stop", "a", "--")
    assert set(texts(command, "--temperature", "--top-k", "--")) == everything - {"--temperature"}


def test_the_values_of_a_flag_are_offered_beside_and_behind_it() -> None:
    assert texts("generate", "--strategy", "") == list(STRATEGIES)
    assert texts("generate", "--strategy=s") == ["--strategy=sampling", "--strategy=stochastic-beam"]
    assert texts("compare", "--strategies", "greedy,b") == ["greedy,beam"]
    assert texts("generate", "--processor-order", "top_k,min_p") == ["top_k,min_p"]
    assert texts("generate", "--early-stopping", "") == ["true", "false", "never"]
    assert texts("generate", "--kv-dtype", "f") == ["float32", "float16"]
    assert texts("inspect", "--backend", "") == ["auto", "native", "torch"]
    assert texts("generate", "--tool-choice", "") == ["auto", "none", "required"]
    assert texts("--install-completion", "") == list(SCRIPTS)
    assert texts("generate", "--max-tokens", "") == []
    assert texts("generate", "--chat=") == []


@pytest.mark.usefixtures("machine")
def test_models_are_those_of_the_caches_and_files_and_folders_by_path() -> None:
    cached = ["default", "org/name:first.gguf", "org/name:other.gguf", "tiny"]
    folders = ["cache/", "hub/", "my models/"]
    flags = ("--model", "-m", "--draft-model", "--amateur")
    for words in (*(("generate", flag) for flag in flags), ("pull",), ("inspect",), ("serve", "-m")):
        assert texts(*words, "") == [*cached, *folders], words
    assert texts("inspect", "my models/") == ["my models/big one.gguf"]
    assert texts("inspect", "~/my") == ["~/my models/"]
    assert texts("serve", "--draft", "small=t") == ["small=tiny"]
    assert texts("serve", "--draft", "sm") == []
    assert texts("serve", "--model", "small=t") == ["small=tiny"]


@pytest.mark.usefixtures("machine")
def test_a_file_is_any_file_and_a_prompt_is_nothing_known() -> None:
    assert texts("generate", "--file", "") == ["cache/", "hub/", "my models/", "notes.txt"]
    assert texts("generate", "--file", ".") == [".hidden"]
    assert texts("generate", "--file=n") == ["--file=notes.txt"]
    assert texts("generate", "--json-schema", "./n") == ["./notes.txt"]
    assert texts("generate", "no") == []
    assert "--model" in texts("generate", "")
    assert texts("generate", "--", "--m") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("decodery ", ["decodery", ""]),
        ("decodery gen", ["decodery", "gen"]),
        ("decodery  a\\ b", ["decodery", "a b"]),
        ("decodery 'a b", ["decodery", "a b"]),
        ("decodery \"a' b", ["decodery", "a' b"]),
        ('decodery "a b" ', ["decodery", "a b", ""]),
        ("decodery it\\'s x", ["decodery", "it's", "x"]),
        ("decodery a\\", ["decodery", "a"]),
    ],
)
def test_a_line_is_divided_as_the_shell_divides_it(line: str, words: list[str]) -> None:
    assert typed_line(line) == words


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("typed", "breaks", "printed"),
    [
        ("-m org/name:f", " \t:=", "first.gguf"),
        ("-m org/name:f", " \t=", "org/name:first.gguf"),
        ("--model=org/name:f", " \t:=", "first.gguf"),
        ("--model=org/name:f", " \t=", "org/name:first.gguf"),
        ("--model=org/name:f", " \t", "--model=org/name:first.gguf"),
    ],
)
def test_bash_gets_what_follows_the_last_break(
    typed: str, breaks: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(PROGRAM, "bash", [f"decodery score {typed}", breaks])
    assert capsys.readouterr().out == f"{printed}\n"


def environment(machine: Path) -> dict[str, str]:
    programs = machine / "programs"
    programs.mkdir()
    program = programs / "decodery"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m decodery "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def take_terminal() -> None:
    """Makes the standard input the terminal that controls this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def words_after_a_tabulator(shell: str, machine: Path, environment: Mapping[str, str]) -> list[str]:
    """Returns the last words that TYPED become, typed into the terminal of an interactive shell."""
    terminal, side = pty.openpty()
    shown = bytearray()

    def wait_for(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, shown.decode(errors="replace")
            if select.select([terminal], [], [], 0.02)[0]:
                shown.extend(os.read(terminal, 1 << 16))

    process = subprocess.Popen(
        [shell, "-i"],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(side)
    words = []
    try:
        wait_for(lambda: b"$ " in shown or b"# " in shown or b"> " in shown)
        for number, typed in enumerate(TYPED):
            # The beginning of the line becomes a program that writes the completed words into a file.
            os.write(terminal, f"decodery {typed}\t > {number}.words\x01printf '%s\\n' \r".encode())
            written = machine / f"{number}.words"
            wait_for(lambda written=written: written.exists() and written.read_text().endswith("\n"))
            words.append(written.read_text().splitlines()[-1])
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return words


@pytest.mark.parametrize("shell", SHELLS)
def test_an_interactive_shell_completes_once_it_is_installed(shell: str, machine: Path) -> None:
    inside = environment(machine)
    for _ in range(2):
        command = ["decodery", "--install-completion", shell]
        installed = subprocess.run(command, env=inside, capture_output=True, text=True, check=True)
    script = Path(installed.stdout.strip())
    assert script.is_relative_to(machine)
    assert script.read_text(encoding="utf-8") == SCRIPTS[shell]
    found = words_after_a_tabulator(shell, machine, inside)
    assert found == [word.format(home=machine) for word in TYPED.values()]


@pytest.mark.parametrize(("shell", "settings"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_an_installation_adds_one_line_and_keeps_the_others(
    shell: str, settings: str, machine: Path, decodery: Run
) -> None:
    (machine / settings).write_text("alias a=b")
    for _ in range(2):
        assert decodery("--install-completion", shell).status == 0
    first, second = (machine / settings).read_text().splitlines()
    assert first == "alias a=b"
    assert f"completion.{shell}" in second


def test_without_a_name_it_is_the_shell_of_the_user(
    machine: Path, decodery: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert decodery("--show-completion").out == SCRIPTS["fish"]
    assert decodery("--install-completion").status == 0
    assert (machine / ".config/fish/completions/decodery.fish").exists()
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    failed = decodery("--install-completion")
    assert (failed.status, failed.out) == (2, "")
    assert failed.err == "decodery: the shell must be bash, zsh, fish, not 'tcsh'\n"


@pytest.mark.usefixtures("machine")
def test_completing_imports_no_heavy_library_and_starting_imports_no_completion() -> None:
    code = """
import sys
from decodery.cli.main import run
assert run(["--version"]) == 0
late = ("decodery.cli.candidates", "decodery.cli.shell_scripts", "huggingface_hub")
loaded = [name for name in late if name in sys.modules]
assert not loaded, loaded
assert run(["complete", "bash", "--", "decodery chat -m ti", ":="]) == 0
heavy = ("torch", "rich", "tokenizers", "numpy", "decodery.llm")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("tiny\n")
