"""Computes standard errors of metrics that are no means: by the jackknife and by the bootstrap."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from decodery.metrics.arguments import hashable, same_length

ROUNDS = 1000
SEED = 0
# The most counts of samples that are held at a time.
BLOCK = 1 << 20


def members(groups: Sequence[Hashable] | None, samples: int) -> list[list[int]]:
    """Returns the indices of the samples of each group, in the order in which the groups first occur.

    Without `groups` each sample is a group of its own.
    Raises `ParameterError` unless `groups` names a group for each sample.
    """
    if groups is None:
        return [[index] for index in range(samples)]
    keys = hashable("groups", groups)
    same_length(samples=range(samples), groups=keys)
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return list(found.values())


def jackknife_error(without: Iterable[tuple[float | None, int]]) -> float | None:
    """Returns the standard error of a metric from its values without one group of samples each.

    Each entry is the value without a group, and the number of groups without which it is the same. The error
    is None for fewer than two groups, and where the metric is undefined without one of them. Efron and Stein,
    The Jackknife Estimate of Variance (1981).
    """
    values = [(value, times) for value, times in without]
    groups = sum(times for _, times in values)
    known = [(value, times) for value, times in values if value is not None]
    if groups < 2 or len(known) < len(values):
        return None
    centre = math.fsum(value * times for value, times in known) / groups
    squares = math.fsum(times * (value - centre) ** 2 for value, times in known)
    return math.sqrt((groups - 1) / groups * squares)


def bootstrap_error(statistic: Callable[[Any], Any], groups: Sequence[int]) -> float | None:
    """Returns the standard deviation of a metric over 1,000 samples of groups, drawn with replacement.

    `groups` has the number of each sample's group. `statistic` gets how often each sample was drawn, an array
    [draws, samples], and returns an array [draws], NaN where the metric is undefined. Such draws are left
    out; the error is None for fewer than three groups, and where most draws have no value. The seed is fixed.
    Efron, Bootstrap Methods: Another Look at the Jackknife (1979).
    """
    import numpy as np

    names, of = np.unique(groups, return_inverse=True)
    if len(names) < 3:
        return None
    random = np.random.default_rng(SEED)
    step = max(1, BLOCK // len(of))
    found = []
    for start in range(0, ROUNDS, step):
        rows = min(step, ROUNDS - start)
        drawn = random.integers(0, len(names), (rows, len(names)))
        flat = (drawn + len(names) * np.arange(rows)[:, None]).ravel()
        times = np.bincount(flat, minlength=rows * len(names)).reshape(rows, len(names))
        found.append(statistic(times[:, of].astype(np.float64)))
    values = np.concatenate(found)
    known = values[~np.isnan(values)]
    return float(np.std(known, ddof=1)) if len(known) > ROUNDS // 2 else None
