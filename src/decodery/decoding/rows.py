"""What strategies read and answer: rows, proposals, scores, verdicts."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from decodery.decoding.params import GenerationParams
from decodery.decoding.trace import Considered

FinishReason = Literal["stop", "length", "abort", "error"]


class Watch(Protocol):
    """Follows a row's tokens and may end it, as stop strings do; immutable, so that it forks with its row."""

    @property
    def stopped(self) -> object:
        """What ended the row, or None."""

    def after(self, token: int) -> Watch:
        """The state after one more token."""


@dataclass(slots=True, eq=False)
class Row:
    """One live sequence. The engine owns and mutates it; strategies only read it.

    `tokens` holds the prompt and then what was generated. `streams` are the completions that the row still
    stands for: all of the request's until they part, then one. `limit` is the number of known tokens at
    which the row ends with reason "length". With `explain`, survivors tell what was considered, so many
    candidates of each choice.
    """

    request: int
    params: GenerationParams
    seed: int
    streams: tuple[int, ...]
    tokens: array[int]
    prompt_length: int
    limit: int
    end_ids: frozenset[int]
    watch: Watch | None = None
    explain: int = 0

    @property
    def generated(self) -> int:
        """How many tokens follow the prompt."""
        return len(self.tokens) - self.prompt_length


@dataclass(frozen=True, slots=True)
class Proposal:
    """What each row runs beyond its known tokens: `drafts[i]` follow row i's last known token.

    A row's scores are wanted at its last known token and at each of its drafts.
    """

    drafts: Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's answer to a proposal.

    `logits` is float32 `[positions, vocab]`, unprocessed; a judge must not change it. Row i's positions are
    `offsets[i]` to `offsets[i + 1]`: the first scores what follows its last known token, the next what
    follows its first draft, and so on.
    """

    logits: torch.Tensor
    offsets: Sequence[int]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token's log-probability under the unprocessed distribution, its rank from 1, and the likeliest."""

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Survivor:
    """A sequence that lives on, or has just ended: `tokens` are appended to `parent`, an index into the rows.

    `keep` of the parent's drafts stay computed; they must be the first `keep` of `tokens`. With `finish` the
    tokens still count, and then the sequence ends.
    """

    parent: int
    tokens: tuple[int, ...]
    streams: tuple[int, ...]
    keep: int = 0
    finish: FinishReason | None = None
    watch: Watch | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    considered: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the scores: a parent named once appends, several times forks, not named is freed.

    `failures` names rows, and why, for which no token is possible; their requests end with reason "error".
    """

    survivors: Sequence[Survivor]
    failures: Sequence[tuple[int, str]] = ()


class Method(Protocol):
    """A strategy's two verbs. Both see all the rows of all its requests at once, and change none."""

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Which tokens to run for each row."""

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Which sequences live on."""
