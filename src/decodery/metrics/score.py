"""Defines `Score`, the result of every metric, and means of samples and of scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from decodery.metrics.arguments import hashable, listed, number, numbers, refuse, same_length


@dataclass(frozen=True, slots=True)
class Score:
    """Holds a metric's value, its standard error and what it was made from.

    `value` is None where the metric is undefined, and `error` where there is no standard error, as for one
    sample. `unit` names the scale: "fraction", "bits per byte", "score 0-100". `counted` is the number of
    samples in the value and `undefined` that of samples without a value: they are counted here, are never 0
    and never dropped without being counted. `settings` says what else the number depends on: labels, a
    signature, bins, a rule for ties.
    """

    value: float | None
    error: float | None
    unit: str
    counted: int
    undefined: int = 0
    settings: str = ""


def mean(
    values: Sequence[float | None],
    *,
    unit: str = "fraction",
    groups: Sequence[Hashable] | None = None,
    weights: Sequence[float] | None = None,
    settings: str = "",
) -> Score:
    """Returns the mean of samples and its standard error; None is a sample without a value.

    Samples of one of the `groups` belong together, such as several answers to one question: the error sums
    their deviations before it squares them. Without `groups` each sample is its own group, which gives the
    usual error with n - 1. `weights` is the weight of each sample. The error is that of this estimator,
    sqrt(G / (G - 1) * sum over groups of (sum of weight * deviation)**2) / sum of weights, for G groups of
    positive weight; it is None for one group. Miller, Adding Error Bars to Evals (2024); Liang and Zeger,
    Longitudinal Data Analysis Using Generalized Linear Models (1986).
    Raises `ParameterError` for no samples, NaN, infinity, other lengths, and weights that are negative or all
    0.
    """
    given = listed("values", values)
    keys: Sequence[Hashable] = range(len(given)) if groups is None else hashable("groups", groups)
    weight = [1.0] * len(given) if weights is None else numbers("weights", weights)
    same_length(values=given, groups=keys, weights=weight)
    if min(weight) < 0 or not sum(weight):
        refuse("weights", "must be at least 0, and one of them above")
    known = [
        (number(f"values[{index}]", value, truth=True), key, factor)
        for index, (value, key, factor) in enumerate(zip(given, keys, weight, strict=True))
        if value is not None
    ]
    undefined = len(given) - len(known)
    total = math.fsum(factor for _, _, factor in known)
    if not total:
        return Score(None, None, unit, 0, len(given), settings)
    value = math.fsum(sample * factor for sample, _, factor in known) / total
    deviations: defaultdict[Hashable, list[float]] = defaultdict(list)
    for sample, key, factor in known:
        if factor:
            deviations[key].append(factor * (sample - value))
    error = _error([math.fsum(parts) for parts in deviations.values()], total)
    return Score(value, error, unit, len(known), undefined, settings)


def _error(deviations: Sequence[float], total: float) -> float | None:
    groups = len(deviations)
    if groups < 2:
        return None
    return math.sqrt(groups / (groups - 1) * math.fsum(part * part for part in deviations)) / total


def mean_of_scores(scores: Sequence[Score], *, weighted: bool = True) -> Score:
    """Returns the mean, and its error, of scores of separate parts such as the subjects of a benchmark.

    With `weighted` each part counts by its samples, as if all samples were averaged; otherwise all parts
    count the same. The parts are fixed, not drawn, so the error is sqrt(sum of (share * error)**2): that of
    the same mean. It is None if a part has none. A part without a value has no share and is named in
    `settings`.
    Raises `ParameterError` for no scores, and for scores of different units.
    """
    given = listed("scores", scores)
    if len({score.unit for score in given}) > 1:
        refuse("scores", f"have different units: {', '.join(sorted({score.unit for score in given}))}")
    unit, counted = given[0].unit, sum(score.counted for score in given)
    undefined = sum(score.undefined for score in given)
    known = [(score.value, score.error, score.counted) for score in given if score.value is not None]
    settings = f"mean of {len(known)} scores, weighted by {'samples' if weighted else 'none'}"
    if len(known) < len(given):
        settings += f"; {len(given) - len(known)} without a value"
    total = sum(samples if weighted else 1 for _, _, samples in known)
    if not total:
        return Score(None, None, unit, counted, undefined, settings)
    shares = [(samples if weighted else 1) / total for _, _, samples in known]
    value = math.fsum(share * part for share, (part, _, _) in zip(shares, known, strict=True))
    errors = [error for _, error, _ in known if error is not None]
    error = None
    if len(errors) == len(known):
        error = math.sqrt(math.fsum((share * one) ** 2 for share, one in zip(shares, errors, strict=True)))
    return Score(value, error, unit, counted, undefined, settings)
