"""Estimates the time of a step that only decodes, by the number of tokens that it runs."""

from __future__ import annotations

# Steps of more tokens are not told apart: their time grows as that of the last two.
MOST = 64
# A step's share in the mean of its size; the first steps of a size count more.
_SHARE = 0.1
# A single step counts as no more than this multiple of the mean.
_EXCESS = 2.0
# The times are computed again after so many steps, or when a size is new.
_KEPT = 8


def _expected(tokens: int) -> float:
    """Returns the time of a step of so many tokens over that of one, before it has been measured.

    Reading the weights takes the time of small steps, and multiplying that of larger ones.
    """
    return 1.0 if tokens <= 2 else 1.0 + 0.09 * (tokens - 2)


class StepTime:
    """Holds the mean time of steps of each size that has run."""

    def __init__(self) -> None:
        self._means: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._times: list[float] = []
        self._learned = 0

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes note of a step that ran so many tokens, none of them of a prompt."""
        if not 1 <= tokens <= MOST or not seconds > 0:
            return
        count = self._counts[tokens] = self._counts.get(tokens, 0) + 1
        mean = self._means.get(tokens, seconds)
        if count == 2:
            # The first step of a size is recorded, which takes longer.
            mean = min(mean, seconds)
        share = max(_SHARE, 1 / count) if count > 2 else 0.5
        self._means[tokens] = mean + share * (min(seconds, _EXCESS * mean) - mean)
        self._learned += 1
        if count <= 4 or self._learned % _KEPT == 0:
            self._times = []

    @property
    def known(self) -> bool:
        """True if any step has been measured."""
        return bool(self._means)

    def times(self) -> list[float]:
        """Returns the times of steps of 0 to `MOST` tokens, in seconds, none shorter than a smaller step's.

        Those that have not been measured follow from the nearest that have.
        """
        if not self._times:
            sizes = sorted(self._means)
            times = [0.0] * (MOST + 1)
            at = 0
            for n in range(1, MOST + 1):
                while at + 1 < len(sizes) and abs(sizes[at + 1] - n) <= abs(sizes[at] - n):
                    at += 1
                near = sizes[at]
                times[n] = max(self._means[near] * _expected(n) / _expected(near), times[n - 1])
            self._times = times
        return self._times
