"""Measures how two lists of numbers vary together: Pearson's and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from decodery.metrics.arguments import listed, number, same_length
from decodery.metrics.resampling import ROUNDS, SEED, bootstrap_error, members
from decodery.metrics.score import Score

# A list whose values differ by less than this share of the largest is constant but for rounding.
SMALLEST_SPREAD = 1e-12

Numbers = Sequence[float | None]
# From values [samples] and how often each occurs, [rows, samples], to values by row.
Transform = Callable[[Any, Any], Any]


def pearson(one: Numbers, other: Numbers, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns Pearson's correlation, with an error from 1,000 bootstrap samples.

    A pair with a None has no value and is counted in `undefined`. The correlation is undefined for fewer than
    two pairs, and where one list is constant: its values differ by less than 1e-12 of the largest.
    Raises `ParameterError` for no pairs, other lengths, NaN and infinity.
    """
    return _correlation(one, other, groups, _plain, "Pearson")


def spearman(one: Numbers, other: Numbers, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns Spearman's correlation: Pearson's of the ranks; equal values share the mean of theirs.

    Undefined cases, error and exceptions are those of `pearson`.
    """
    return _correlation(one, other, groups, _ranks, "Spearman, average ranks of ties")


def _correlation(
    one: Numbers,
    other: Numbers,
    groups: Sequence[Hashable] | None,
    transform: Transform,
    settings: str,
) -> Score:
    import numpy as np

    firsts, seconds = listed("one", one), listed("other", other)
    same_length(one=firsts, other=seconds)
    known = [i for i, pair in enumerate(zip(firsts, seconds, strict=True)) if None not in pair]
    x = np.array([number(f"one[{i}]", firsts[i]) for i in known])
    y = np.array([number(f"other[{i}]", seconds[i]) for i in known])
    group_of = {i: group for group, indices in enumerate(members(groups, len(firsts))) for i in indices}
    if len(known) < 2 or _is_constant(x) or _is_constant(y):
        return Score(None, None, "correlation", 0, len(firsts), settings)
    x, y = _centred(x), _centred(y)

    def statistic(times: Any) -> Any:
        return _pearson(transform(x, times), transform(y, times), times)

    value = float(statistic(np.ones((1, len(known))))[0])
    error = bootstrap_error(statistic, [group_of[i] for i in known])
    settings += f"; error from {ROUNDS} bootstrap samples, seed {SEED}"
    return Score(value, error, "correlation", len(known), len(firsts) - len(known), settings)


def _pearson(x: Any, y: Any, times: Any) -> Any:
    """Returns the correlation of each row, in which a value occurs as often as `times` says, or NaN."""
    import numpy as np

    samples = times.sum(1, keepdims=True)
    a, b = (values - (times * values).sum(1, keepdims=True) / samples for values in (x, y))
    of_a, of_b = ((times * values * values).sum(1) for values in (a, b))
    shared = (times * a * b).sum(1)
    varies = (of_a > SMALLEST_SPREAD**2) & (of_b > SMALLEST_SPREAD**2)
    scale = np.sqrt(np.where(varies, of_a, 1)) * np.sqrt(np.where(varies, of_b, 1))
    return np.where(varies, np.clip(shared / scale, -1, 1), np.nan)


def _is_constant(values: Any) -> bool:
    largest = abs(values).max()
    # Halved, so that the difference of the largest numbers is finite.
    return bool(values.max() / 2 - values.min() / 2 <= SMALLEST_SPREAD / 2 * largest)


def _centred(values: Any) -> Any:
    """Returns the deviations from the mean over the largest one, so that their squares are finite."""
    scaled = values / abs(values).max()
    deviations = scaled - scaled.mean()
    return deviations / abs(deviations).max()


def _plain(values: Any, times: Any) -> Any:
    return values


def _ranks(values: Any, times: Any) -> Any:
    """Returns the ranks of the values for each row of `times`; equal values share the mean of their ranks."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    equal = np.add.reduceat(times[:, order], starts, axis=1)  # Of each distinct value, by row.
    ranks = np.cumsum(equal, axis=1) - (equal - 1) / 2
    place = np.searchsorted(values[order][starts], values)
    return ranks[:, place]
