"""Estimates the time of a step that only decodes, by the number of tokens that it runs."""

from __future__ import annotations

from array import array

# Steps of more tokens are not told apart.
MOST = 64
# What each further token adds to the time of a step of one, before steps have been measured: reading the
# weights takes the time of small steps, and multiplying that of larger ones.
_SLOPE = 0.1
# A step's share in the mean of its size, in the time of a step of one token, and in the slope. The first
# steps of a size count more.
_SHARE, _SLOPE_SHARE = 0.1, 0.05
# A single step counts as no more than this multiple of what is expected.
_EXCESS = 2.0
# The times are computed again after so many steps. The ratios then move by the share to what the slope says,
# and the slope by half of it to the first one, so that no size is avoided for ever because of slow steps.
_KEPT, _FORGOTTEN = 8, 0.02


class StepTime:
    """Holds the time of a step of one token, and for each size the ratio of its steps' time to that.

    Times of all sizes rise and fall with the load of the machine and with the lengths of the texts. The
    ratios hardly do.
    """

    def __init__(self) -> None:
        self._one = 0.0
        self._slope = _SLOPE
        self._ratios = [1.0 + _SLOPE * max(n - 1, 0) for n in range(MOST + 1)]
        self._counts = [0] * (MOST + 1)
        self._times = array("d")
        self._learned = 0

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes note of a step that ran so many tokens, none of them of a prompt."""
        if not 1 <= tokens <= MOST or not seconds > 0:
            return
        self._counts[tokens] += 1
        count = self._counts[tokens] - 1
        if not count:
            # The first step of a size is recorded, which takes longer.
            return
        ratio = self._ratios[tokens]
        if not self._one:
            self._one = seconds / ratio
        seconds = min(seconds, _EXCESS * ratio * self._one)
        if tokens > 1:
            measured = seconds / self._one
            self._ratios[tokens] += max(_SHARE, 1 / (1 + count)) * (measured - ratio)
            self._slope += _SLOPE_SHARE * ((measured - 1) / (tokens - 1) - self._slope)
        self._learned += 1
        self._one += max(_SHARE, 1 / self._learned) * (seconds / ratio - self._one)
        if count <= 4 or self._learned % _KEPT == 0:
            self._times = array("d")

    @property
    def known(self) -> bool:
        """True if any step has been measured."""
        return self._one > 0

    def times(self) -> array[float]:
        """Returns the times of steps of 0 to `MOST` tokens, in seconds (float64), in ascending order."""
        if not self._times:
            self._slope += _FORGOTTEN / 2 * (_SLOPE - self._slope)
            times = array("d", bytes(8 * (MOST + 1)))
            for n in range(1, MOST + 1):
                expected = 1.0 + self._slope * (n - 1)
                self._ratios[n] += _FORGOTTEN * (expected - self._ratios[n])
                times[n] = max(self._one * self._ratios[n], times[n - 1])
            self._times = times
        return self._times
