"""Tests the paired bootstrap and McNemar's test."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.metrics import bootstrap, mcnemar, mean


def test_mcnemar_equals_the_library() -> None:
    from scipy.stats import binomtest

    for seed in range(200):
        draw = random.Random(seed)
        one = [draw.random() < 0.6 for _ in range(draw.randint(1, 80))]
        other = [right if draw.random() < 0.5 else draw.random() < 0.8 for right in one]
        gained = sum(second > first for first, second in zip(one, other, strict=True))
        lost = sum(second < first for first, second in zip(one, other, strict=True))
        found = mcnemar(one, other)
        expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert found.p_value == pytest.approx(expected)
        assert found.value == pytest.approx((gained - lost) / len(one))
        assert found.settings == f"McNemar's exact test, {gained} gained and {lost} lost"


def test_hand_counted_mcnemar() -> None:
    found = mcnemar([True] * 5 + [False] * 15, [True] * 5 + [True] * 9 + [False] * 6)
    assert found.p_value == pytest.approx(2 * 0.5**9)
    assert found.value == pytest.approx(9 / 20)
    assert mcnemar([True, False], [False, True]).p_value == 1.0
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_the_bootstrap_has_the_mean_and_the_error_of_paired_differences() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.random(60).tolist(), draw.random(60).tolist()
    found, gaps = bootstrap(one, other), mean([b - a for a, b in zip(one, other, strict=True)])
    assert (found.value, found.error) == (pytest.approx(gaps.value), pytest.approx(gaps.error))
    assert found.low is not None
    assert found.high is not None
    assert found.low < gaps.value < found.high  # type: ignore[operator]
    # The interval of 95% is about four standard errors wide.
    assert (found.high - found.low) / 2 / gaps.error == pytest.approx(1.96, rel=0.05)  # type: ignore[operator]


def test_swapping_the_runs_changes_the_sign_alone() -> None:
    one, other = [0, 0, 1, 0, 1] * 8, [1, 0, 1, 0, 0] * 8
    here, there = bootstrap(one, other), bootstrap(other, one)
    assert here.value == -there.value  # type: ignore[operator]
    assert (here.error, here.p_value) == (there.error, there.p_value)
    assert here.low == pytest.approx(-there.high)  # type: ignore[operator]


def test_a_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    draw = random.Random(1)
    one, other = [draw.random() for _ in range(50)], [draw.random() for _ in range(50)]
    assert bootstrap(one, other, seed=3) == bootstrap(one, other, seed=3)
    assert bootstrap(one, other, seed=3).low != bootstrap(one, other, seed=4).low


def test_equal_runs_have_no_difference() -> None:
    found = bootstrap([1, 0, 1], [1, 0, 1])
    assert (found.value, found.error, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_the_p_value_is_two_sided() -> None:
    from scipy.stats import norm

    draw = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.2):
        one = draw.normal(size=200)
        found = bootstrap(one.tolist(), (one + draw.normal(shift, 1, 200)).tolist())
        assert found.value is not None
        assert found.error is not None
        assert found.p_value == pytest.approx(2 * norm.sf(abs(found.value) / found.error), abs=0.02)


def test_a_large_group_weighs_more_than_a_small_one_in_each_round() -> None:
    sizes, values = [1, 2, 5, 9, 3], [0.0, 1.0, 0.3, 0.8, 0.1]
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    every = [
        sum(sizes[group] * values[group] for group in drawn) / sum(sizes[group] for group in drawn)
        for drawn in product(range(5), repeat=5)
    ]
    found = bootstrap([0.0] * 20, [values[group] for group in groups], groups=groups)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), abs=0.02)


def test_without_a_difference_five_of_a_hundred_p_values_are_below_5_percent() -> None:
    draw = np.random.default_rng(5)
    found = []
    for _ in range(300):
        one, other = draw.random((2, 60)).tolist()
        found.append(bootstrap(one, other, rounds=500).p_value)
    share = np.mean(np.array(found) < 0.05)
    assert 0.02 < share < 0.10


def test_samples_of_one_group_are_drawn_together() -> None:
    draw = random.Random(2)
    one, other = [draw.random() for _ in range(30)], [draw.random() for _ in range(30)]
    plain = bootstrap(one, other)
    copied = bootstrap(one * 5, other * 5, groups=[*range(30)] * 5)
    assert copied.value == pytest.approx(plain.value)
    assert copied.error == pytest.approx(plain.error)
    assert copied.low == pytest.approx(plain.low)
    assert copied.p_value == pytest.approx(plain.p_value)


def test_blocks_of_draws_give_the_numbers_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from decodery.metrics import differences

    draw = random.Random(2)
    one, other = [draw.random() for _ in range(30)], [draw.random() for _ in range(30)]
    whole = bootstrap(one, other, rounds=1000)
    monkeypatch.setattr(differences, "BLOCK", 30 * 10)
    assert bootstrap(one, other, rounds=1000) == whole


def test_a_sample_without_a_value_in_either_run_is_counted() -> None:
    found = bootstrap([1, None, 0, 0], [1, 1, None, 1])
    assert (found.value, found.counted, found.undefined) == (0.5, 2, 2)
    empty = bootstrap([None], [1])
    assert (empty.value, empty.p_value, empty.undefined) == (None, None, 1)


def test_one_sample_or_one_group_has_a_value_alone() -> None:
    for found in (bootstrap([0.5], [1.0]), bootstrap([0, 1], [1, 1], groups=["a", "a"])):
        assert found.value == 0.5
        assert (found.error, found.low, found.high, found.p_value) == (None, None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 10}, "rounds must be a whole number of at least 100"),
        ({"rounds": math.nan}, "rounds must be a finite number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_rounds_and_seeds_without_meaning_are_errors(options: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        bootstrap([1, 0], [0, 0], **options)


def test_mcnemar_takes_right_and_wrong_alone() -> None:
    with pytest.raises(ParameterError, match=r"^one\[0\] must be True or False"):
        mcnemar([0.5], [1])  # type: ignore[list-item]
    with pytest.raises(ParameterError, match=r"^other\[0\] must be"):
        mcnemar([True], [None])  # type: ignore[list-item]
