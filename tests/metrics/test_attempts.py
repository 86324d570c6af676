"""Tests pass@k."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.metrics import Score, mean_pass_at_k, pass_at_k


def test_pass_at_k_draws_without_replacement() -> None:
    assert pass_at_k(10, 3, 5).value == pytest.approx(0.916667, abs=1e-6)
    assert pass_at_k(10, 3, 5) == Score(pass_at_k(10, 3, 5).value, None, "fraction", 1, settings="k=5, n=10")
    assert pass_at_k(5, 0, 5).value == 0.0
    assert pass_at_k(5, 1, 5).value == 1.0
    assert pass_at_k(10_000, 1, 1).value == 1e-4


@pytest.mark.parametrize(
    ("n", "c", "k", "name"),
    [
        (2, 0, 5, "k"),
        (2, 2, 5, "k"),
        (1, 1, 10, "k"),
        (3, 4, 1, "c"),
        (3, -1, 1, "c"),
        (3, 1, 0, "k"),
        (0, 0, 1, "n"),
        (3.5, 1, 1, "n"),
        (3, True, 1, "c"),
        (3, float("nan"), 1, "c"),
    ],
)
def test_numbers_without_an_estimate_are_an_error_and_never_1(n: Any, c: Any, k: Any, name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        pass_at_k(n, c, k)
    assert caught.value.param == name
    with pytest.raises(ParameterError):
        mean_pass_at_k([(10, 1), (n, c)], k)


def test_problems_are_no_samples() -> None:
    # 164 problems with one attempt each, of which 50 are solved.
    problems = [(1, 1)] * 50 + [(1, 0)] * 114
    score = mean_pass_at_k(problems, 1)
    assert score.value == pytest.approx(0.3049, abs=1e-4)
    assert score.error == pytest.approx((0.3049 * 0.6951 / 163) ** 0.5, abs=1e-5)
    with pytest.raises(ParameterError, match=r"^k is 10, and problems\[0\]\.n is 1"):
        mean_pass_at_k(problems, 10)
    with pytest.raises(ParameterError, match=r"^problems\[0\] must be the two numbers"):
        mean_pass_at_k([5, 1], 1)  # type: ignore[list-item]
    with pytest.raises(ParameterError, match=r"^problems is empty"):
        mean_pass_at_k([], 1)


def test_pass_at_k_is_the_share_of_draws_with_a_right_attempt() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        n = draw.randint(1, 9)
        c, k = draw.randint(0, n), draw.randint(1, n)
        draws = list(combinations(range(n), k))
        assert pass_at_k(n, c, k).value == pytest.approx(sum(min(one) < c for one in draws) / len(draws))
