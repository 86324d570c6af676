"""Checks that no body whatever makes the server fail. `python -m tests.serving.fuzz` is the long form."""

from __future__ import annotations

from tests.serving.fuzz import fuzz
from tests.serving.live import LiveServer


def test_whatever_comes_is_answered_or_refused_and_the_next_request_works(server: LiveServer) -> None:
    statuses = fuzz(server, 300, seed=5)
    assert statuses[200] > 20
    assert statuses[400] > 100
