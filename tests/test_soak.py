"""Checks that a short run of `tests.soak` leaks nothing, and that its report detects leaks."""

from __future__ import annotations

import pytest

from tests.kernels.native.fixtures import built
from tests.soak import SoakReport, soak

pytestmark = built


@pytest.mark.slow
def test_sixty_requests_that_come_and_go_leave_nothing_behind() -> None:
    report = soak(60, seed=1)
    assert report.finished > 30
    assert report.dropped > 3
    assert report.preemptions > 0
    # The run is too short to separate memory growth from warm-up, so only threads and files are checked.
    assert report.threads[-1] == report.threads[1]
    assert report.files[-1] == report.files[1]


@pytest.mark.parametrize("leak", ["memory", "threads", "files"])
def test_a_leak_fails_the_check(leak: str) -> None:
    report = SoakReport(memory=[2**28] * 40, threads=[3] * 40, files=[7] * 40)
    report.check()
    steady = getattr(report, leak)
    steady[:] = [count + i * (2**19 if leak == "memory" else i // 39) for i, count in enumerate(steady)]
    with pytest.raises(AssertionError, match=leak):
        report.check()
