"""Tests standard errors by the jackknife and the bootstrap."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from decodery.metrics import mean, resampling
from decodery.metrics.resampling import bootstrap_error, jackknife_error, members


def test_the_jackknife_of_a_mean_is_its_error() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        values = [draw.randint(0, 3) for _ in range(draw.randint(2, 30))]
        rest = [(sum(values) - value) / (len(values) - 1) for value in values]
        assert jackknife_error((one, 1) for one in rest) == pytest.approx(mean(values).error)
        counted = [(one, rest.count(one)) for one in set(rest)]
        assert jackknife_error(counted) == pytest.approx(mean(values).error)


@pytest.mark.parametrize("without", [[], [(0.5, 1)], [(0.5, 3), (None, 1)]])
def test_one_group_or_a_missing_value_has_no_jackknife(without: list[tuple[float | None, int]]) -> None:
    assert jackknife_error(without) is None


def test_the_bootstrap_of_a_mean_is_near_its_error() -> None:
    values = np.random.default_rng(0).random(50)

    def statistic(times: Any) -> Any:
        return (times * values).sum(1) / times.sum(1)

    expected = mean(values.tolist()).error
    assert bootstrap_error(statistic, range(50)) == pytest.approx(expected, rel=0.1)
    assert bootstrap_error(statistic, [0, 1] * 25) is None


def test_a_statistic_that_is_mostly_undefined_has_no_error() -> None:
    assert bootstrap_error(lambda times: np.full(len(times), np.nan), range(9)) is None
    # About a third of the draws do not hold a given sample.
    assert bootstrap_error(lambda times: np.where(times[:, 0] > 0, np.nan, 1.0), range(9)) is None
    assert bootstrap_error(lambda times: np.where(times[:, 0] > 0, 1.0, np.nan), range(9)) == 0.0


def test_blocks_of_draws_give_the_error_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def statistic(times: Any) -> Any:
        return times[:, 0]

    whole = bootstrap_error(statistic, range(20))
    monkeypatch.setattr(resampling, "BLOCK", 20 * 7)
    assert bootstrap_error(statistic, range(20)) == whole


def test_members_are_the_indices_of_each_group() -> None:
    assert members(["b", "a", "b"], 3) == [[0, 2], [1]]
    assert members(None, 2) == [[0], [1]]
