"""Tests that a command that was killed or interrupted goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_process import process
from tests.evaluation.runs.conftest import arc_rows, write_arc, write_rows, written
from tests.kernels.native.fixtures import built

pytestmark = built
KILLS = 20
# Imports the command once, then runs it in forks: all but the last are killed at random moments.
DRIVER = """
import json, os, random, signal, sys, time
import decodery.cli.main, decodery.cli.commands.evaluation.run, decodery.evaluation.tasks.arc, torch

def started(command):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = decodery.cli.main.run(command)
        finally:
            os._exit(status)
    return child

def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

whole, killed, kills = json.loads(sys.argv[1])
begun = time.perf_counter()
assert status(started(whole)) == 0
seconds = time.perf_counter() - begun
rng, found = random.Random(0), []
for _ in range(kills):
    child = started(killed)
    time.sleep(rng.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    found.append(status(child))
found.append(status(started(killed)))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_20_times_is_that_of_one_that_was_not_byte_for_byte(
    tmp_path: Path, tiny: str, workers: int
) -> None:
    data = write_arc(tmp_path / "data", 40)
    command = ["eval", "arc", "-m", tiny, "--data", str(data), "--shots", "2", "--workers"]
    whole = [*command, "1", "--out", str(tmp_path / "whole")]
    killed = [*command, str(workers), "--out", str(tmp_path / "killed")]
    arguments = [sys.executable, "-c", DRIVER, json.dumps([whole, killed, KILLS])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *found, last = json.loads(done.stdout.splitlines()[-1])
    # A run that has ended before the moment has the status 0.
    assert last == 0, done.stderr
    assert set(found) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in found
    assert written(tmp_path / "killed") == written(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*.part"))


def test_ctrl_c_leaves_130_says_that_the_same_command_goes_on_and_so_it_does(
    tmp_path: Path, tiny: str
) -> None:
    data = write_arc(tmp_path / "data")
    write_rows(data / "test.jsonl", arc_rows(150, "q"))
    command = ["eval", "arc", "-m", tiny, "--data", str(data), "--shots", "2", "--out", str(tmp_path / "out")]
    stopped = process(*command)
    answers = tmp_path / "out" / "answers.jsonl"
    until = time.monotonic() + 60
    while not (answers.exists() and answers.stat().st_size):
        assert stopped.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert err == b"decodery: stopped; the same command goes on from here\n"
    kept = answers.read_bytes().count(b"\n")
    assert 0 < kept < 600
    goes_on = process(*command)
    out, _ = goes_on.communicate(timeout=120)
    assert goes_on.returncode == 0
    assert out.startswith(b"arc: 150 documents")
    calls = json.loads((tmp_path / "out" / "run.json").read_text())["calls"]
    assert [call["asked"] for call in calls] == [600 - kept]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path, tiny: str) -> None:
    data = write_arc(tmp_path / "data")
    (tmp_path / "out").mkdir(mode=0o500)
    done = process("eval", "arc", "-m", tiny, "--data", str(data), "--out", str(tmp_path / "out"))
    _, err = done.communicate(timeout=60)
    assert done.returncode == 1
    assert err.count(b"\n") == 1
    assert b"cannot be written" in err
