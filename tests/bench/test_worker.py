from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.contenders.contender import Arrival, Timing, Writing
from bench.remote import MissingError, Remote, WorkerError


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with Remote(Path(sys.executable), "tests.bench.fake", tmp_path, 1, tmp_path / "log") as found:
        yield found


def state(remote: Remote) -> str:
    line = Path(f"/proc/{remote.process.pid}/stat").read_text(encoding="ascii")
    return line.rpartition(")")[2].split()[0]


def test_a_remote_contender_answers_as_it_would_here_whatever_its_library_prints(remote: Remote) -> None:
    assert remote.serving == "static batches"
    assert remote.run([[5, 6, 7], [8, 9, 1]], 4) == Timing(3.0, 4.5, 6)
    times = remote.serve([Arrival(0.0, [1, 2], 3), Arrival(0.001, [3], 1)])
    assert [len(t) for t in times] == [3, 1]
    assert all(t == sorted(t) for t in times)
    writing = Writing([5, 6], 8, seed=1, temperature=0.5, schema={"type": "object"})
    assert remote.write(writing, False) == Timing(1.0, 9.0, 8)
    assert remote.write(writing, True) == Timing(1.0, 5.0, 8)
    assert remote.call("memory") > 0
    assert "generating" in remote.log.read_text(encoding="utf-8")


def test_a_missing_method_and_a_failing_one_raise_different_errors(
    remote: Remote,
) -> None:
    with pytest.raises(MissingError, match="no beam search"):
        remote.beams([1], 2, 4)
    with pytest.raises(MissingError, match="no sampled"):
        remote.sampled([[1]], 2)
    with pytest.raises(WorkerError, match=r"^ValueError: two$"):
        remote.call("fail")
    assert remote.run([[1]], 1) == Timing(1.0, 1.0, 0)


def test_a_worker_that_dies_is_an_error_and_stays_one(remote: Remote) -> None:
    for _ in range(2):
        with pytest.raises(WorkerError, match="has ended"):
            remote.call("die")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell states")
def test_a_worker_is_stopped_except_during_a_call(remote: Remote) -> None:
    remote.run([[1]], 1)
    until = time.monotonic() + 5
    while state(remote) != "T" and time.monotonic() < until:
        time.sleep(0.01)
    assert state(remote) == "T"
