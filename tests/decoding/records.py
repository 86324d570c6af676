"""Compares records of what choices considered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from decodery.decoding.trace import Considered


def assert_same_records(found: Sequence[Considered | None], expected: Sequence[Considered | None]) -> None:
    """Raises `AssertionError` if more differs than the rounding of probabilities."""
    for mine, other in zip(found, expected, strict=True):
        if mine is None or other is None:
            assert mine is other
            continue
        assert [c.token for c in mine.candidates] == [c.token for c in other.candidates]
        assert [(s.name, s.kept) for s in mine.stages] == [(s.name, s.kept) for s in other.stages]
        for one, two in zip(mine.stages, other.stages, strict=True):
            assert one.probabilities == pytest.approx(two.probabilities, rel=1e-6, abs=0)
        for one, two in zip(mine.candidates, other.candidates, strict=True):
            near = {name: pytest.approx(getattr(two, name), rel=1e-6, abs=0) for name in ("before", "after")}
            assert one == replace(two, **near)
        near = {"before": 0.0, "after": pytest.approx(other.after, rel=1e-6, abs=0)}
        plain = {"candidates": (), "stages": (), **near}
        assert replace(mine, candidates=(), stages=(), before=0.0) == replace(other, **plain)
