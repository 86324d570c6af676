from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.engine.drafts.allocation import worthwhile

probabilities = st.lists(st.floats(0.01, 0.99), max_size=3)


@given(
    st.lists(probabilities, min_size=1, max_size=3),
    st.integers(0, 2),
    st.lists(st.floats(0, 0.6), min_size=16, max_size=16),
)
def test_no_other_numbers_of_drafts_give_more_tokens_per_second(
    likely: list[list[float]], besides: int, grown: list[float]
) -> None:
    times = [0.0, *itertools.accumulate(grown, initial=1.0)]
    rows = len(likely) + besides

    def rate(counts: tuple[int, ...]) -> float:
        gained = sum(math.prod(row[: j + 1]) for row, n in zip(likely, counts, strict=True) for j in range(n))
        return (rows + gained) / times[rows + sum(counts)]

    found = worthwhile(likely, rows, times, least=1.0)
    best = max(rate(counts) for counts in itertools.product(*(range(len(row) + 1) for row in likely)))
    assert rate(tuple(found)) == pytest.approx(best)


def test_drafts_that_gain_too_little_do_not_run() -> None:
    assert worthwhile([[0.05]], 1, [0.0, 1.0, 1.0], least=1.02) == [1]
    assert worthwhile([[0.01]], 1, [0.0, 1.0, 1.0], least=1.02) == [0]


def test_steps_beyond_the_known_times_run_no_drafts() -> None:
    assert worthwhile([[0.9]], 5, [0.0, 1.0, 1.0], least=1.0) == [0]


def test_many_drafts_run_alone_and_none_where_rows_fill_the_step() -> None:
    times = [0.0, 1.0, 1.0, *(1.0 + 0.1 * n for n in range(1, 40))]
    assert worthwhile([[0.9] * 8], 1, times, least=1.02) == [8]
    assert sum(worthwhile([[0.9, 0.8]] + [[0.2]] * 7, 8, times, least=1.02)) <= 2
    steep = [float(n) for n in range(60)]
    assert worthwhile([[0.9] * 8] * 4, 4, steep, least=1.02) == [0] * 4
