"""What a step considered, for showing why a token was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token with its probability before and after the processors; `after` is 0 where it was cut away."""

    token: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Stage:
    """What one processor did to a choice: the candidates' probabilities after it, and how many tokens it
    left.

    `probabilities` are those of the choice's candidates, in their order.
    """

    name: str
    kept: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """One candidate of a step of beam search, under its parent.

    `parent` and `beam` are places among the request's beams before and after the step; `beam` is None unless
    the candidate was "kept". `score` is the sum of log-probabilities that ranked it, `logprob` its last one.
    """

    parent: int
    token: int
    logprob: float
    score: float
    fate: Literal["kept", "finished", "pruned"]
    beam: int | None = None


@dataclass(frozen=True, slots=True)
class Considered:
    """One choice of one row.

    `token` was chosen with probability `before` under the model and `after` under the processed distribution;
    `rank` counts from 1 under the model, `entropy` is the model's in bits, `kept` counts the tokens that the
    processors left possible. `candidates` are the model's likeliest, in order; the chosen one is appended
    when it is not among them. `stages` are the processors that changed something, in order. `allowed` counts
    the tokens that the grammar allowed, where there is one; `forced` says that it left no choice.
    """

    token: int
    before: float
    after: float
    rank: int
    entropy: float
    kept: int
    candidates: tuple[Candidate, ...]
    stages: tuple[Stage, ...] = ()
    allowed: int | None = None
    forced: bool = False


def consider(raw: torch.Tensor, processed: torch.Tensor, token: int, count: int) -> Considered:
    """What was considered when `token` was chosen; `raw` and `processed` are logits `[vocab]`."""
    before = torch.softmax(raw.double(), -1)
    after = torch.softmax(processed.double(), -1)
    top = before.topk(min(count, before.numel())).indices.tolist()
    shown = top if token in top else [*top, token]
    return Considered(
        token=token,
        before=float(before[token]),
        after=float(after[token]),
        rank=int((raw > raw[token]).sum()) + 1,
        entropy=float(torch.special.entr(before).sum()) / 0.6931471805599453,
        kept=int((processed > -torch.inf).sum()),
        candidates=tuple(Candidate(i, float(before[i]), float(after[i])) for i in shown),
    )
