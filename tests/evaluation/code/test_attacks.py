"""Checks that no program passes a test whose answer it does not know, and that none does harm or survives."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from decodery.evaluation.code.code_runner import best_fence
from decodery.evaluation.code.isolated_run import CodeRunError, Fence, run_program
from decodery.evaluation.code.outcome import CodeLimits, CodeOutcome
from tests.evaluation.code import attacks

LIMITS = CodeLimits(cpu_seconds=1, wall_seconds=20, output_bytes=1 << 20, file_bytes=4 << 20)
SLOW = pytest.mark.slow
HOOKS = Fence(namespaces=False, drop=False)


@pytest.fixture(scope="module")
def fence() -> Fence:
    """Returns the best fence of this machine."""
    try:
        return best_fence()
    except CodeRunError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def namespaces(fence: Fence) -> Fence:
    """Returns the fence of namespaces, where the kernel permits it."""
    if not fence.namespaces:
        pytest.skip("the kernel permits no namespaces")
    return fence


def attacked(program: str, fence: Fence, limits: CodeLimits = LIMITS) -> CodeOutcome:
    """Returns the outcome of a program that cannot know the answer, as it is drawn here."""
    secret = 77 * 10**16 + random.SystemRandom().randrange(10**16)
    test = f"def check(candidate):\n    assert all(map(lambda n: candidate(n) == {secret}, [3]))\n"
    return run_program(program, test, "answer", limits, fence=fence)


@pytest.mark.parametrize("name", attacks.FORGERIES)
def test_no_program_passes_without_the_answer(name: str, fence: Fence) -> None:
    attack = attacks.FORGERIES[name]
    outcome = attacked(attack.program, fence)
    assert not outcome.passed
    assert outcome.reason in attack.reasons, outcome


@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith("searches: memory") else pytest.param(name, marks=SLOW)
        for name in attacks.FORGERIES
    ],
)
def test_no_program_passes_without_the_answer_behind_audit_hooks(name: str) -> None:
    attack = attacks.FORGERIES[name]
    assert attacked(attack.program, HOOKS).reason in attack.reasons


@pytest.mark.parametrize("name", [*attacks.LIMITS, *(pytest.param(n, marks=SLOW) for n in attacks.WAITING)])
def test_a_program_that_takes_too_much_is_ended(
    name: str, fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    attack = (attacks.LIMITS | attacks.WAITING)[name]
    limits = CodeLimits(cpu_seconds=1, wall_seconds=3, output_bytes=1 << 20, file_bytes=4 << 20)
    outcome = attacked(attack.program, fence, limits)
    assert outcome.reason in attack.reasons, outcome
    assert os.listdir(tmp_path) == []


def test_more_files_than_the_limit_cannot_be_written(namespaces: Fence) -> None:
    program = """
def answer(number):
    for name in range(40):
        with open(str(name), "wb") as file: file.write(bytes(1 << 19))
"""
    assert "No space left" in attacked(program, namespaces).detail


def test_processes_are_counted(namespaces: Fence) -> None:
    outcome = run_program(
        attacks.FORK_BOMB,
        "assert 1 <= answer(1) < 8",
        "answer",
        CodeLimits(wall_seconds=20),
        fence=namespaces,
    )
    assert outcome.passed, outcome


def processes(name: str) -> list[str]:
    """Returns the ids of the processes that were started under a name."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [words[0] for words in map(str.split, listed.splitlines()) if words[1:2] == [name]]


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits until a condition holds, for at most a minute."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_descendant_survives(fence: Fence) -> None:
    name = f"orphan{os.getpid()}"
    program = attacks.ORPHAN.replace("{name}", name)
    outcome = run_program(
        program, "assert answer(5) == 5", "answer", CodeLimits(wall_seconds=20), fence=fence
    )
    assert outcome.passed == fence.namespaces, outcome
    assert processes(name) == []


def test_no_descendant_survives_that_passed_the_audit_hooks() -> None:
    name = f"unaudited{os.getpid()}"
    program = attacks.UNAUDITED_ORPHAN.replace("{name}", name)
    outcome = run_program(program, "assert answer(5) > 1", "answer", CodeLimits(wall_seconds=20), fence=HOOKS)
    assert outcome.passed == (os.getuid() == 0), outcome
    assert processes(name) == []


@pytest.mark.slow
def test_nothing_survives_a_caller_that_is_killed(namespaces: Fence, tmp_path: Path) -> None:
    name = f"killed{os.getpid()}"
    program = attacks.ORPHAN.replace("{name}", name) + "start()\nwhile True: time.sleep(1)\n"
    code = (
        "from decodery.evaluation.code.isolated_run import *\n"
        f"run_program({program!r}, 'answer(1)', 'answer', CodeLimits(), fence={namespaces!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as caller:
        try:
            wait_until(lambda: len(processes(name)) == 1)
        finally:
            caller.kill()
    wait_until(lambda: not processes(name) and not os.listdir(tmp_path))


def test_no_signal_reaches_a_process_of_the_outside(fence: Fence) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        program = attacks.KILLER.format(process=bystander.pid)
        outcome = attacked(program, fence)
        assert not outcome.passed
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("kind", ["namespaces", "audit hooks"])
def test_files_of_the_outside_stay(kind: str, fence: Fence, tmp_path: Path) -> None:
    chosen = fence if kind == "namespaces" else HOOKS
    file = tmp_path / "mine.txt"
    file.write_text("kept")
    tmp_path.chmod(0o777)
    file.chmod(0o666)
    program = attacks.REMOVER.format(file=str(file), folder=str(tmp_path))
    outcome = run_program(program, "assert answer(1) == 'mine'", "answer", LIMITS, fence=chosen)
    assert outcome.passed, outcome
    assert file.read_text() == "kept"
    assert file.stat().st_mode & 0o777 == 0o666
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_files_of_the_user_cannot_be_read(namespaces: Fence, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("secret")
    for place in (str(file), os.path.realpath(__file__), "/etc/passwd"):
        program = attacks.READER.format(file=place)
        test = "assert answer(1) == 'unreadable'"
        assert run_program(program, test, "answer", LIMITS, fence=namespaces).passed


@pytest.mark.parametrize("kind", ["namespaces", "audit hooks"])
def test_no_program_reaches_a_socket(kind: str, fence: Fence) -> None:
    chosen = fence if kind == "namespaces" else HOOKS
    abstract = f"decodery-test-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as over_ip,
        socket.socket(socket.AF_UNIX) as by_path,
        socket.socket(socket.AF_UNIX) as by_name,
    ):
        path = f"{folder}/socket"
        by_path.bind(path)
        by_path.listen()
        os.chmod(folder, 0o777)
        os.chmod(path, 0o777)
        by_name.bind(f"\0{abstract}")
        by_name.listen()
        program = attacks.CALLER.format(port=over_ip.getsockname()[1], path=path, abstract=abstract)
        outcome = run_program(program, "assert answer(1) == 0", "answer", LIMITS, fence=chosen)
        assert outcome.passed, outcome


@pytest.mark.parametrize("kind", ["namespaces", "audit hooks"])
@pytest.mark.parametrize(
    "program",
    [
        "def answer(number):\n    return 0",
        "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w')\nos.chmod('a', 0)\ndef answer(number): pass",
    ],
)
def test_the_folder_is_removed(
    kind: str, program: str, fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    attacked(program, fence if kind == "namespaces" else HOOKS)
    assert os.listdir(tmp_path) == []


def test_the_environment_is_empty(fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    program = "import os\ndef answer(number):\n    return sorted(os.environ)"
    test = "assert set(answer(1)) <= {'PATH', 'LANG', 'HOME', 'PYTHONHASHSEED', 'TZ', 'LC_CTYPE', 'PWD'}"
    assert run_program(program, test, "answer", LIMITS, fence=fence).passed
