"""Says whether the difference between two runs over the same samples is real."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb

from decodery.metrics.arguments import count, listed, number, same_length, truths
from decodery.metrics.resampling import members
from decodery.metrics.score import mean

# The most numbers that are drawn at a time.
BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Difference:
    """Holds how much better the second of two runs is than the first, on the same samples.

    `value` is the mean of second minus first, and `error` its standard error. `low` and `high` enclose the
    95% interval, None where the method has none. `p_value` is the probability of a difference at least as
    large if there is none, two-sided. All are None where they are undefined. `counted` samples have a value
    in both runs and `undefined` ones do not. `settings` names the method.
    """

    value: float | None
    error: float | None
    low: float | None
    high: float | None
    p_value: float | None
    counted: int
    undefined: int = 0
    settings: str = ""


def bootstrap(
    one: Sequence[float | None],
    other: Sequence[float | None],
    seed: int = 0,
    rounds: int = 10_000,
    *,
    groups: Sequence[Hashable] | None = None,
) -> Difference:
    """Returns the mean of `other` minus `one` over the same samples, with the paired bootstrap.

    Each round draws as many samples, or whole `groups`, as there are, with replacement. The interval has 95%
    of the rounds, and the p-value is twice the smaller share of rounds with a difference of at most 0, or of
    at least 0. The error is that of `mean`. A sample that is None in either run is undefined. One group gives
    a value alone.
    Raises `ParameterError` for no samples, other lengths, NaN, and fewer than 100 rounds.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993).
    """
    import numpy as np

    firsts, seconds = listed("one", one), listed("other", other)
    same_length(one=firsts, other=seconds)
    rounds, seed = count("rounds", rounds, 100), count("seed", seed)
    pairs = list(zip(firsts, seconds, strict=True))
    gaps = [
        None
        if None in pair
        else number(f"other[{i}]", pair[1], truth=True) - number(f"one[{i}]", pair[0], truth=True)
        for i, pair in enumerate(pairs)
    ]
    known = mean(gaps, groups=groups)
    parts = [[gap for i in group if (gap := gaps[i]) is not None] for group in members(groups, len(gaps))]
    parts = [part for part in parts if part]
    settings = f"paired bootstrap, {rounds} rounds, seed {seed}, {len(parts)} groups of samples"
    if len(parts) < 2:
        return Difference(known.value, None, None, None, None, known.counted, known.undefined, settings)
    sums, sizes = np.array([sum(part) for part in parts]), np.array([len(part) for part in parts])
    random = np.random.default_rng(seed)
    step = max(1, BLOCK // len(parts))
    drawn = []
    for start in range(0, rounds, step):
        picked = random.integers(0, len(parts), (min(step, rounds - start), len(parts)))
        drawn.append(sums[picked].sum(1) / sizes[picked].sum(1))
    means = np.concatenate(drawn)
    low, high = np.quantile(means, (0.025, 0.975))
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (rounds + 1))
    return Difference(
        known.value, known.error, float(low), float(high), p_value, known.counted, known.undefined, settings
    )


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> Difference:
    """Returns the difference in accuracy of two runs over the same samples, with McNemar's exact test.

    `one` and `other` say for each sample whether the run is right. Samples that both have right, or both
    wrong, say nothing about the difference: the p-value is that of a binomial with 1/2 over the others,
    two-sided, and 1 if there are none.
    Raises `ParameterError` for no samples, other lengths, and entries other than True and False.
    McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions (1947).
    """
    firsts, seconds = truths("one", one), truths("other", other)
    same_length(one=firsts, other=seconds)
    gaps = [second - first for first, second in zip(firsts, seconds, strict=True)]
    gained, lost = gaps.count(1), gaps.count(-1)
    apart = gained + lost
    tail = sum(comb(apart, wins) for wins in range(min(gained, lost) + 1))
    p_value = min(1.0, 2 * tail / 2**apart)
    known = mean(gaps)
    settings = f"McNemar's exact test, {gained} gained and {lost} lost"
    return Difference(known.value, known.error, None, None, p_value, known.counted, settings=settings)
