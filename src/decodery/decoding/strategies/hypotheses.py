"""The sequences of a beam search that have ended: the n best by length-normalised score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.rows import Ending, FinishReason, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One ended sequence: its tokens after the prompt and what ranks it."""

    tokens: tuple[int, ...]
    finish: FinishReason
    score: float
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The best `size` ended sequences of one group of beams, oldest first; `done` once the group has
    stopped."""

    size: int
    found: tuple[Hypothesis, ...] = ()
    done: bool = False

    def added(self, new: Hypothesis) -> Hypotheses:
        """With a new one in, and the worst out if there are too many."""
        if len(self.found) == self.size and new.score <= self.worst:
            return self
        found = (*self.found, new)
        if len(found) > self.size:
            out = min(range(len(found)), key=lambda i: found[i].score)
            found = found[:out] + found[out + 1 :]
        return replace(self, found=found)

    @property
    def worst(self) -> float:
        """The lowest score among those found."""
        return min(h.score for h in self.found)

    def decided(self, strategy: BeamSearch, total: float, length: int, longest: int) -> bool:
        """Whether the group stops now that its likeliest candidate has this `total` at this `length`.

        Lengths are in generated tokens; `longest` is the most that there can be.
        """
        if len(self.found) < self.size:
            return False
        if strategy.early_stopping is True:
            return True
        # A total never rises, so that a sequence is best either now or, where length is a gain, at its
        # longest. Only "never" looks that far ahead.
        ahead = strategy.early_stopping == "never" and strategy.length_penalty > 0
        return self.worst >= normalised(total, longest if ahead else length, strategy.length_penalty)


def normalised(total: float, length: int, penalty: float) -> float:
    """A sum of log-probabilities divided by the generated length to the power `penalty` (Wu et al. 2016,
    section 7, without its constant)."""
    return total / math.pow(length, penalty)


def endings(parent: int, groups: Iterable[Hypotheses], streams: int) -> list[Ending]:
    """What is told of a search that is over: the best of all groups, best first, one for each stream.

    Where fewer different sequences were possible than there are streams, the others end with reason "error"
    and no tokens.
    """
    # Of equal scores the later comes first.
    best = sorted((h for group in groups for h in group.found), key=lambda h: h.score)[::-1]
    told = [
        Ending(parent, stream, h.tokens, h.finish, h.score, h.logprobs, h.error)
        for stream, h in enumerate(best[:streams])
    ]
    return told + [Ending(parent, stream, (), "error") for stream in range(len(told), streams)]
