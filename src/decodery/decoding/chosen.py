"""Defines what is reported of chosen tokens. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "time", "abort", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Holds a token's log-probability under the unprocessed distribution.

    `rank` counts from 1; `top` are the likeliest tokens with their log-probabilities.
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]
