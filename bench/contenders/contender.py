"""Defines a contender: an engine with a loaded model, which is measured through three calls.

All calls take token ids, decode greedily and ignore end tokens. Some contenders also have `write`, which
writes one text as its `Writing` says, with or without drafts. The files of this folder import nothing of
Decodery, and import their library only when they are used, since each runs in its library's own environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Prompt = Sequence[int]


@dataclass(frozen=True)
class Timing:
    """Holds the timing of one call.

    `first` is in seconds from the call until each stream had its first token, `last` until all streams were
    done; `tokens` came in between.
    """

    first: float
    last: float
    tokens: int


@dataclass(frozen=True)
class Writing:
    """Describes a text to write: `tokens` at most after a prompt, drawn with these settings.

    `temperature` 0 is greedy; `schema` is the JSON schema that the text must match. The text ends at the
    model's end token unless `ignore_end`.
    """

    prompt: Prompt
    tokens: int
    seed: int
    temperature: float
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    schema: dict[str, Any] | None = None
    ignore_end: bool = False


@dataclass(frozen=True)
class Arrival:
    """Describes a request for `tokens` new tokens that arrives `at` seconds after the call."""

    at: float
    prompt: Prompt
    tokens: int


class Contender(Protocol):
    """Runs an engine over a model; `serving` says how it serves requests that arrive over time."""

    serving: str

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        """Generates exactly so many tokens after each prompt, together; all prompts have one length."""

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        """Returns the seconds of a beam search of exactly `tokens` steps.

        Raises `NotImplementedError` if the engine has no beam search.
        """

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        """Returns for each request the seconds from the call until each of its tokens was there."""


class Stamps:
    """Collects the times of the tokens of several streams."""

    def __init__(self, streams: int) -> None:
        self.times: list[list[float]] = [[] for _ in range(streams)]

    def timing(self) -> Timing:
        """Returns the timing that follows from the times."""
        first = max(times[0] for times in self.times)
        after = [t for times in self.times for t in times if t > first]
        return Timing(first, max(after, default=first), len(after))
