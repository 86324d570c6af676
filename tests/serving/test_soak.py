"""Checks a short run of `tests.serving.soak`, and that its watch detects leaks."""

from __future__ import annotations

import sys

import pytest

from tests.serving.soak import Watched, load


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_requests_that_come_and_go_leave_no_file_open(folder: str) -> None:
    watched = load(folder, 100, seed=1)
    assert watched.files[-1] <= watched.files[0]


@pytest.mark.parametrize("leak", ["memory", "threads", "files"])
def test_a_leak_fails_the_check(leak: str) -> None:
    watched = Watched(memory=[2**28] * 40, threads=[3] * 40, files=[7] * 40)
    watched.check()
    counts = getattr(watched, leak)
    counts[:] = [count + place * (2**20 if leak == "memory" else 1) for place, count in enumerate(counts)]
    with pytest.raises(AssertionError, match=leak):
        watched.check()
