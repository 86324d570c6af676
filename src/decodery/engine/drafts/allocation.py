"""Decides how many of the drafts of a step's rows are worth running."""

from __future__ import annotations

from collections.abc import Sequence


def worthwhile(
    likely: Sequence[Sequence[float]], rows: int, times: Sequence[float], *, least: float
) -> list[int]:
    """Returns how many of its drafts each row runs, so that the step has the most tokens per second.

    `likely[i]` has for each draft of row i the probability that it is right if those before it are. The step
    runs `rows` tokens besides drafts; `times[n]` is the time of a step of n tokens. Drafts run only where the
    gain is at least the factor `least`.
    """
    gains: list[tuple[float, int]] = []
    for i, probabilities in enumerate(likely):
        reached = 1.0
        for probability in probabilities:
            reached *= probability
            gains.append((reached, i))
    # A row's gains never grow, so that the largest gains are those of its first drafts; the sort is stable.
    gains.sort(key=lambda gain: -gain[0])
    counts = [0] * len(likely)
    if rows >= len(times):
        return counts
    best, taken = least * rows / times[rows], 0
    expected = float(rows)
    for k, (gain, _) in enumerate(gains[: len(times) - 1 - rows], 1):
        expected += gain
        if expected / times[rows + k] > best:
            best, taken = expected / times[rows + k], k
    for _, i in gains[:taken]:
        counts[i] += 1
    return counts
