"""Holds the sequences of a beam search that have ended: the best by length-normalised score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.rows import Ending


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Holds one ended sequence: its tokens after the prompt, and the score that ranks it."""

    tokens: tuple[int, ...]
    finish: FinishReason
    score: float
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Holds the best `size` ended sequences of one group of beams, oldest first.

    `done` is set once the group has stopped.
    """

    size: int
    found: tuple[Hypothesis, ...] = ()
    done: bool = False

    def added(self, new: Hypothesis) -> Hypotheses:
        """Returns the hypotheses with a new one, and without the worst if there are more than `size`."""
        if len(self.found) == self.size and new.score <= self.worst:
            return self
        found = (*self.found, new)
        if len(found) > self.size:
            out = min(range(len(found)), key=lambda i: found[i].score)
            found = found[:out] + found[out + 1 :]
        return replace(self, found=found)

    @property
    def worst(self) -> float:
        """Returns the lowest score among those found."""
        return min(h.score for h in self.found)

    def decided(self, strategy: BeamSearch, total: float, length: int, longest: int) -> bool:
        """True if the group stops, given the `total` and `length` of the likeliest text that may go on.

        Lengths are in generated tokens. `longest` is the greatest possible length.
        """
        if len(self.found) < self.size:
            return False
        if strategy.early_stopping is True:
            return True
        # A total never rises with length. So a sequence's best score is the one it has now, or, where the
        # penalty favours length, at most its total now at the greatest length. Only "never" considers that.
        ahead = strategy.early_stopping == "never" and strategy.length_penalty > 0
        return self.worst >= normalised(total, longest if ahead else length, strategy.length_penalty)


def normalised(total: float, length: int, penalty: float) -> float:
    """Returns a sum of log-probabilities divided by the generated length to the power `penalty`.

    This is the length normalisation of Wu et al. 2016 (section 7) without its constant.
    """
    return total / math.pow(length, penalty)


def endings(parent: int, groups: Iterable[Hypotheses], streams: int) -> list[Ending]:
    """Returns the completions of a search that is over: the best of all groups, best first, one per stream.

    If there are fewer sequences than streams, the other streams end with reason "error" and no tokens.
    """
    # Of equal scores the one found later comes first.
    best = sorted((h for group in groups for h in group.found), key=lambda h: h.score)[::-1]
    found = [
        Ending(parent, stream, h.tokens, h.finish, h.score, h.logprobs, h.error)
        for stream, h in enumerate(best[:streams])
    ]
    return found + [Ending(parent, stream, (), "error") for stream in range(len(found), streams)]
