"""What `make soak` does at length."""

from __future__ import annotations

import pytest

from tests.kernels.native.fixtures import built
from tests.soak import Told, soak

pytestmark = built


@pytest.mark.slow
def test_sixty_requests_that_come_and_go_leave_nothing_behind() -> None:
    told = soak(60, seed=1)
    assert told.finished > 30
    assert told.dropped > 3
    assert told.preemptions > 0
    # Too short a run to tell growth from warm-up: threads and files alone.
    assert told.threads[-1] == told.threads[1]
    assert told.files[-1] == told.files[1]


@pytest.mark.parametrize("leak", ["memory", "threads", "files"])
def test_a_leak_is_told(leak: str) -> None:
    told = Told(memory=[2**28] * 40, threads=[3] * 40, files=[7] * 40)
    told.check()
    steady = getattr(told, leak)
    steady[:] = [count + i * (2**19 if leak == "memory" else i // 39) for i, count in enumerate(steady)]
    with pytest.raises(AssertionError, match=leak):
        told.check()
