"""Measures how two lists of numbers vary together: Pearson's and Spearman's correlation."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from decodery.metrics.arguments import listed, number, same_length
from decodery.metrics.resampling import ROUNDS, SEED, bootstrap_error, members
from decodery.metrics.score import Score

# A list whose values differ by less than this share of the largest is constant but for rounding.
SMALLEST_SPREAD = 1e-12

Numbers = Sequence[float | None]


def pearson(one: Numbers, other: Numbers, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns Pearson's correlation, with an error from 1,000 bootstrap samples.

    A pair with a None has no value and is counted in `undefined`. The correlation is undefined for fewer than
    two pairs, and where one list is constant: its values differ by less than 1e-12 of the largest.
    Raises `ParameterError` for no pairs, other lengths, NaN and infinity.
    """
    return _correlation(one, other, groups, lambda values: values, "Pearson")


def spearman(one: Numbers, other: Numbers, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns Spearman's correlation: Pearson's of the ranks; equal values share the mean of theirs.

    Undefined cases, error and exceptions are those of `pearson`.
    """
    return _correlation(one, other, groups, _ranks, "Spearman, average ranks of ties")


def _correlation(
    one: Numbers,
    other: Numbers,
    groups: Sequence[Hashable] | None,
    transform: Callable[[Any], Any],
    settings: str,
) -> Score:
    import numpy as np

    firsts, seconds = listed("one", one), listed("other", other)
    same_length(one=firsts, other=seconds)
    known = [i for i, pair in enumerate(zip(firsts, seconds, strict=True)) if None not in pair]
    missing = len(firsts) - len(known)
    x = np.array([number(f"one[{i}]", firsts[i]) for i in known])
    y = np.array([number(f"other[{i}]", seconds[i]) for i in known])
    place = {index: at for at, index in enumerate(known)}
    parts = [[place[i] for i in group if i in place] for group in members(groups, len(firsts))]

    def statistic(drawn: Any) -> float | None:
        return _pearson(x[drawn], y[drawn], transform)

    value = statistic(np.arange(len(known)))
    if value is None:
        return Score(None, None, "correlation", 0, len(firsts), settings)
    error = bootstrap_error(statistic, [part for part in parts if part])
    settings += f"; error from {ROUNDS} bootstrap samples, seed {SEED}"
    return Score(value, error, "correlation", len(known), missing, settings)


def _pearson(x: Any, y: Any, transform: Callable[[Any], Any]) -> float | None:
    if len(x) < 2 or _is_constant(x) or _is_constant(y):
        return None
    a, b = _centred(transform(x)), _centred(transform(y))
    value = float((a * b).sum()) / math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return min(1.0, max(-1.0, value))


def _is_constant(values: Any) -> bool:
    largest = abs(values).max()
    # Halved, so that the difference of the largest numbers is finite.
    return bool(values.max() / 2 - values.min() / 2 <= SMALLEST_SPREAD / 2 * largest)


def _centred(values: Any) -> Any:
    """Returns the deviations from the mean over the largest one, so that their squares are finite."""
    scaled = values / abs(values).max()
    deviations = scaled - scaled.mean()
    return deviations / abs(deviations).max()


def _ranks(values: Any) -> Any:
    """Returns the ranks from 1; equal values share the mean of theirs."""
    import numpy as np

    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    return (last - (times - 1) / 2)[place]
