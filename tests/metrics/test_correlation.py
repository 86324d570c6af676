"""Tests Pearson's and Spearman's correlation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from decodery.metrics import Score, pearson, spearman

both = pytest.mark.parametrize("measure", [pearson, spearman])


def drawn() -> Iterator[tuple[list[float], list[float]]]:
    """Yields 200 pairs of lists of numbers, of many sizes, half of them with ties."""
    for seed in range(200):
        draw = random.Random(seed)
        digits, scale = (1, 1.0) if seed % 2 else (9, 10.0 ** draw.randint(-200, 200))
        one = [round(draw.gauss(0, 1), digits) for _ in range(draw.randint(3, 40))]
        yield one, [scale * round(value + draw.gauss(0, 1), digits) for value in one]


def test_correlations_equal_the_library() -> None:
    from scipy import stats

    for one, other in drawn():
        flat = [value / max(map(abs, other)) for value in other]  # scipy's squares overflow.
        assert pearson(one, other).value == pytest.approx(stats.pearsonr(one, flat).statistic, abs=1e-12)
        assert spearman(one, other).value == pytest.approx(stats.spearmanr(one, flat).statistic, abs=1e-12)


@both
@pytest.mark.parametrize(
    "constant", [[1, 1, 1], [0.1 + 0.2, 0.3, 0.3], [0, 0, 0], [-1e300, -1e300, -1e300], [1e-300] * 3]
)
def test_a_list_that_is_constant_but_for_rounding_has_no_correlation(
    measure: Callable[..., Score], constant: list[float]
) -> None:
    for pair in ((constant, [1, 2, 3]), ([1, 2, 3], constant), (constant, constant)):
        score = measure(*pair)
        assert (score.value, score.error, score.counted, score.undefined) == (None, None, 0, 3)


@both
def test_numbers_of_any_size_have_one(measure: Callable[..., Score]) -> None:
    for scale in (1e-300, 1e-9, 1e300):
        assert measure([scale, 2 * scale, 3 * scale], [3, 2, 1]).value == pytest.approx(-1.0)
    assert measure([-1.7e308, 0, 1.7e308], [1, 2, 3]).value == pytest.approx(1.0)
    assert measure([1.3e308, 1.5e308, 1.7e308], [1, 2, 3]).value == pytest.approx(1.0)
    assert measure([1e9, 1e9 + 1, 1e9 + 2], [1, 2, 3]).value == pytest.approx(1.0)


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    score = spearman([1, 2, 2, 3], [1, 2, 3, 4])
    assert score.value == pytest.approx(0.9487, abs=1e-4)
    assert score.settings.startswith("Spearman, average ranks of ties")


@both
def test_a_pair_without_a_value_is_left_out_and_counted(measure: Callable[..., Score]) -> None:
    score = measure([1, None, 2, 5, 3], [1, 9, None, 5, 3])
    assert (score.value, score.counted, score.undefined) == (pytest.approx(1.0), 3, 2)
    assert measure([None, 1], [1, None]).value is None
    assert measure([1], [2]).value is None


@both
def test_the_error_is_the_spread_over_samples_and_always_the_same(measure: Callable[..., Score]) -> None:
    draw = np.random.default_rng(4)

    def sample(count: int) -> tuple[list[float], list[float]]:
        one = draw.normal(size=count)
        return one.tolist(), (one + draw.normal(size=count)).tolist()

    spread = float(np.std([measure(*sample(80)).value for _ in range(60)], ddof=1))
    error = measure(*sample(80)).error
    assert error == pytest.approx(spread, rel=0.4)
    pair = sample(30)
    assert measure(*pair) == measure(*pair)


@both
def test_copies_of_samples_in_groups_do_not_lower_the_error(measure: Callable[..., Score]) -> None:
    one, other = next(drawn())
    plain, groups = measure(one, other), [*range(len(one))] * 4
    grouped = measure(one * 4, other * 4, groups=groups)
    assert grouped.value == pytest.approx(plain.value)
    assert grouped.error == pytest.approx(plain.error)
    assert measure(one * 4, other * 4).error < 0.7 * plain.error  # type: ignore[operator]
