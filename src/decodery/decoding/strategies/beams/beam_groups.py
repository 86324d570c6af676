"""Holds the state of beam searches: what a live row remembers, and one group of beams during a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.rows import Row
from decodery.decoding.stopping import finish_of
from decodery.decoding.strategies.beams.beam_candidates import Candidate
from decodery.decoding.strategies.beams.constrained_beams import Progress, holds_all
from decodery.decoding.strategies.beams.hypotheses import Hypotheses, Hypothesis, normalised

UNMET = (
    "force_words: no beam holds all of them at its end; raise num_beams or max_tokens, or lift what bans them"
)


@dataclass(frozen=True, slots=True)
class Beam:
    """Holds a live row's state between steps.

    `place` is its index among the request's beams, where those of a group are adjacent. `total` is its sum of
    log-probabilities, `progress` how much of the forced phrases it has completed. `ended` are the ended
    sequences of each group, shared by all rows of the request.
    """

    place: int
    total: float
    progress: Progress
    ended: tuple[Hypotheses, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class Child:
    """Holds a candidate with the row that it makes of `rows[parent]`, and with `finish` if that row ends."""

    candidate: Candidate
    parent: int
    row: Row
    progress: Progress
    finish: FinishReason | None
    logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def complete(self) -> bool:
        """True if its text contains all forced phrases."""
        return self.progress.complete or holds_all(self.row)


@dataclass(slots=True)
class Group:
    """Holds one group of a request's beams during a step; its beams' places are `size` from `first` on.

    `parents` are the indices of its rows among all rows that are judged. Of the `candidates`, `kept` are the
    next beams and `ended` have ended, best first.
    """

    strategy: BeamSearch
    first: int
    size: int
    hypotheses: Hypotheses
    parents: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    beams: list[Beam] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    kept: list[Child] = field(default_factory=list)
    ended: list[Child] = field(default_factory=list)

    @property
    def totals(self) -> list[float]:
        """Returns the sums of its beams so far."""
        return [beam.total for beam in self.beams]

    @property
    def length(self) -> int:
        """Returns how many generated tokens a candidate's text has."""
        return self.rows[0].generated + 1

    @property
    def longest(self) -> int:
        """Returns the greatest possible number of generated tokens."""
        return self.rows[0].limit - self.rows[0].prompt_length

    @property
    def ends_here(self) -> bool:
        """True if no text goes on after this step: its limit of tokens or of time is reached."""
        return self.length >= self.longest or self.rows[0].expired

    def child(self, candidate: Candidate) -> Child:
        """Returns the candidate with its row, which has the token appended."""
        row = self.rows[candidate.beam].after(candidate.token)
        progress = self.beams[candidate.beam].progress.after(candidate.token)
        return Child(candidate, self.parents[candidate.beam], row, progress, finish_of(row))

    def hypothesis(self, child: Child) -> Hypothesis:
        """Returns an ended child as a hypothesis, with its score."""
        row = child.row
        assert child.finish is not None
        return Hypothesis(
            tokens=tuple(row.tokens[row.prompt_length :]),
            finish=child.finish,
            score=normalised(child.candidate.total, row.generated, self.strategy.length_penalty),
            logprobs=self.beams[child.candidate.beam].logprobs + child.logprobs,
            error=None if child.complete else UNMET,
        )
