"""Measures whether confidences are probabilities: expected calibration error, and the Brier score."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

from decodery.metrics.arguments import chosen, count, listed, probabilities, refuse, same_length, truths
from decodery.metrics.resampling import jackknife_error, members
from decodery.metrics.score import Score, mean

Norm = Literal["l1", "l2", "max"]
# The samples of a bin, the sum of their confidences, and how many are right.
Bin = tuple[int, float, int]


def calibration(
    confidences: Sequence[float],
    right: Sequence[bool],
    bins: int = 15,
    norm: Norm = "l1",
    *,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the expected calibration error: how far confidence is from the share of right answers, in bins.

    The bins divide 0 to 1 into equal intervals (low, high]; the first one holds 0 too. With "l1" the gaps of
    the bins are averaged by their samples, with "l2" their squares, of which the root is taken, and "max" is
    the largest gap. The error is the jackknife's, and None for "max", which is no smooth function of the
    samples.
    Raises `ParameterError` for no samples, other lengths, and confidences outside 0 to 1.
    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015).
    """
    given, hits = probabilities("confidences", confidences), truths("right", right)
    same_length(confidences=given, right=hits)
    bins = count("bins", bins, 1)
    chosen("norm", norm, ("l1", "l2", "max"))
    edges = [edge / bins for edge in range(1, bins + 1)]
    places = [bisect_left(edges, value) for value in given]
    filled: dict[int, Bin] = {}
    for place, value, hit in zip(places, given, hits, strict=True):
        size, total, good = filled.get(place, (0, 0.0, 0))
        filled[place] = size + 1, total + value, good + hit

    def without() -> Iterator[tuple[float | None, int]]:
        for group in members(groups, len(given)):
            rest = dict(filled)
            for index in group:
                size, total, good = rest[places[index]]
                rest[places[index]] = size - 1, total - given[index], good - hits[index]
            yield _gap([part for part in rest.values() if part[0]], norm), 1

    error = None if norm == "max" else jackknife_error(without())
    settings = f"{bins} equal bins, norm {norm}, n={len(given)}"
    return Score(_gap(list(filled.values()), norm), error, "fraction", len(given), settings=settings)


def _gap(filled: Sequence[Bin], norm: Norm) -> float | None:
    samples = sum(size for size, _, _ in filled)
    if not samples:
        return None
    gaps = [(abs(good - total) / size, size / samples) for size, total, good in filled]
    if norm == "max":
        return max(gap for gap, _ in gaps)
    if norm == "l1":
        return math.fsum(gap * share for gap, share in gaps)
    return math.sqrt(math.fsum(gap * gap * share for gap, share in gaps))


def brier(
    confidences: Sequence[float], outcomes: Sequence[bool], *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns the mean of (confidence - outcome)**2, where the confidence is that the outcome is True.

    It is half of what `brier_multiclass` gives for two classes.
    Raises `ParameterError` as `calibration` does. Brier, Verification of Forecasts (1950).
    """
    given, hits = probabilities("confidences", confidences), truths("outcomes", outcomes)
    same_length(confidences=given, outcomes=hits)
    values = [(value - hit) ** 2 for value, hit in zip(given, hits, strict=True)]
    return mean(values, unit="squared error", groups=groups, settings="binary, from 0 to 1")


def brier_multiclass(
    rows: Sequence[Sequence[float]], gold: Sequence[int], *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns the mean of the summed squared differences between a sample's probabilities and its gold class.

    `rows` has for each sample the probabilities of all classes, which sum to 1, and `gold` the number of its
    class, from 0. For two classes it is twice what `brier` gives.
    Raises `ParameterError` for no samples, other lengths, sums other than 1, and a gold class that is none.
    """
    given, classes = listed("rows", rows), listed("gold", gold)
    same_length(rows=given, gold=classes)
    values = []
    for index, (row, right) in enumerate(zip(given, classes, strict=True)):
        known = probabilities(f"rows[{index}]", row)
        if abs(math.fsum(known) - 1) > 1e-4:
            refuse(f"rows[{index}]", f"must sum to 1: {math.fsum(known)}")
        if count(f"gold[{index}]", right) >= len(known):
            refuse(f"gold[{index}]", f"is {right}, and there are {len(known)} classes, from 0")
        values.append(math.fsum((value - (place == right)) ** 2 for place, value in enumerate(known)))
    sizes = Counter(len(list(row)) for row in given)
    if len(sizes) > 1:
        refuse("rows", f"have different numbers of classes: {', '.join(map(str, sorted(sizes)))}")
    settings = f"multiclass, {max(sizes)} classes, from 0 to 2"
    return mean(values, unit="squared error", groups=groups, settings=settings)
