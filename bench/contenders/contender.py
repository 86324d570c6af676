"""What is measured: engines with a loaded model, all through the same three calls.

Everything is greedy with end tokens ignored, token ids in and out. The files of this folder import nothing of
ours but each other, and their library only when they are used: each runs in its library's own environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Prompt = Sequence[int]


@dataclass(frozen=True)
class Timing:
    """Seconds from the call until every stream had its first token, until all was done, and how many tokens
    came in between."""

    first: float
    last: float
    tokens: int


@dataclass(frozen=True)
class Arrival:
    """A request of `tokens` new tokens that arrives `at` seconds after the call."""

    at: float
    prompt: Prompt
    tokens: int


class Contender(Protocol):
    """An engine over a model; `serving` says in a few words how it serves requests that arrive over time."""

    serving: str

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        """Generate exactly so many tokens after each prompt, together; all prompts have one length."""

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        """Seconds of a beam search of exactly so many steps. `NotImplementedError` where there is none."""

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        """For each request the seconds from the call until each of its tokens was there."""


class Stamps:
    """Times of tokens of several streams, as they come."""

    def __init__(self, streams: int) -> None:
        self.times: list[list[float]] = [[] for _ in range(streams)]

    def timing(self) -> Timing:
        """What they come to."""
        first = max(times[0] for times in self.times)
        after = [t for times in self.times for t in times if t > first]
        return Timing(first, max(after, default=first), len(after))
