"""Measures problems with several attempts each: pass@k."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import comb

from decodery.metrics.arguments import count, listed, refuse
from decodery.metrics.score import Score, mean


def pass_at_k(n: int, c: int, k: int) -> Score:
    """Returns the probability that k of n attempts, drawn without replacement, hold one of the c right ones.

    It is 1 - C(n - c, k) / C(n, k), in exact integers: the unbiased estimate for one problem. An error of it
    comes from several problems alone (`mean_pass_at_k`).
    Raises `ParameterError` for k above n, c above n, and numbers that are not whole.
    Chen et al., Evaluating Large Language Models Trained on Code (2021).
    """
    return Score(_estimate("", n, c, k), None, "fraction", 1, settings=f"k={k}, n={n}")


def mean_pass_at_k(
    problems: Sequence[tuple[int, int]], k: int, *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns the mean of pass@k over problems, each with its number of attempts n and of right ones c.

    Raises `ParameterError` for no problems and as `pass_at_k` does, with the place of the problem.
    """
    values: list[float] = []
    attempts: set[int] = set()
    for index, problem in enumerate(listed("problems", problems)):
        if not isinstance(problem, Sequence) or len(problem) != 2:
            refuse(f"problems[{index}]", f"must be the two numbers n and c: {problem!r}")
        values.append(_estimate(f"problems[{index}].", problem[0], problem[1], k))
        attempts.add(problem[0])
    spread = f"{min(attempts)}" if len(attempts) == 1 else f"{min(attempts)} to {max(attempts)}"
    return mean(values, groups=groups, settings=f"k={k}, n={spread}")


def _estimate(place: str, n: int, c: int, k: int) -> float:
    n, c, k = count(f"{place}n", n, 1), count(f"{place}c", c), count("k", k, 1)
    if c > n:
        refuse(f"{place}c", f"is {c} of only {n} attempts")
    if k > n:
        refuse("k", f"is {k}, and {place}n is {n}: draw at least {k} attempts of each problem")
    draws = comb(n, k)
    return (draws - comb(n - c, k)) / draws
