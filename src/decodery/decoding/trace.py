"""Records what a step considered, to show why a token was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


class Explained(Protocol):
    """Says how many candidates of its choices a row explains; 0 is none."""

    @property
    def explain(self) -> int:
        """Returns the number of candidates."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Holds a token's probability before and after the processors; `after` is 0 where it was cut away."""

    token: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Holds what one processor did to a choice.

    `kept` counts the tokens that it left possible. `probabilities` are those of the choice's candidates after
    it, in their order.
    """

    name: str
    kept: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """Holds one candidate of a step of beam search, under its parent.

    `parent` and `beam` are indices into the request's beams before and after the step; `beam` is None unless
    the candidate was "kept". `score` is the value that it was ranked by: the sum of log-probabilities, in
    stochastic beam search with its noise. `logprob` is its own, after the processors and the diversity
    penalty.
    """

    parent: int
    token: int
    logprob: float
    score: float
    fate: Literal["kept", "finished", "pruned"]
    beam: int | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """Holds a token that a strategy compared with others.

    `similarity` is the largest cosine of its hidden state with those before it. `score` is the value that
    decided.
    """

    token: int
    probability: float
    similarity: float
    score: float


@dataclass(frozen=True, slots=True)
class Considered:
    """Holds one choice of one row.

    `token` was chosen, with probability `before` under the model and `after` under the processed
    distribution. `rank` counts from 1 under the model, `entropy` is the model's in bits, `kept` counts the
    tokens that the processors left possible. `candidates` are the model's likeliest tokens, in order; the
    chosen one is appended if it is not among them. `stages` are the processors that changed something, in
    order. `allowed` counts the tokens that the grammar allowed, if there is one; `forced` says that it
    allowed one only. `weighed` are the tokens that contrastive search compared, the likeliest first.
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
    weighed: tuple[Weighed, ...] = ()


class Recorder:
    """Records what the processors did to the rows that explain; it is the `record` of one call of `process`.

    `raw` are the unprocessed logits `[rows, vocab]`. A row that does not explain costs nothing.
    """

    def __init__(self, raw: Tensor, rows: Sequence[Explained]) -> None:
        self._raw = raw
        self._counts = [row.explain for row in rows]
        self._last = {i: raw[i] for i, count in enumerate(self._counts) if count}
        self._stages: dict[int, list[tuple[str, Tensor]]] = {i: [] for i in self._last}
        self._allowed: dict[int, int] = {}

    def __call__(self, name: str, using: Sequence[int], logits: Tensor) -> None:
        """Records how stage `name` changed the rows that it was applied to; keeps copies of `logits` only."""
        for i in using:
            if i not in self._last:
                continue
            if name == "grammar":
                self._allowed[i] = _kept(logits[i])
            if not torch.equal(logits[i], self._last[i]):
                self._last[i] = logits[i].clone()
                self._stages[i].append((name, self._last[i]))

    def considered(self, i: int, processed: Tensor, token: int) -> Considered:
        """Returns what was considered when row i, with these processed logits `[vocab]`, chose `token`."""
        return consider(
            self._raw[i],
            processed,
            token,
            self._counts[i],
            stages=self._stages.get(i, ()),
            allowed=self._allowed.get(i),
        )


def consider(
    raw: Tensor,
    processed: Tensor,
    token: int,
    count: int,
    *,
    stages: Sequence[tuple[str, Tensor]] = (),
    allowed: int | None = None,
) -> Considered:
    """Returns what was considered when `token` was chosen.

    The candidates are the model's `count` likeliest tokens. `raw` and `processed` are logits `[vocab]`;
    `stages` are the logits after each processor that changed them; `allowed` is how many tokens a grammar
    allowed.
    """
    before = torch.softmax(raw.double(), -1)
    after = torch.softmax(processed.double(), -1)
    top = before.topk(min(count, before.numel())).indices.tolist()
    shown = top if token in top else [*top, token]
    return Considered(
        token=token,
        before=float(before[token]),
        after=float(after[token]),
        rank=int((raw > raw[token]).sum()) + 1,
        entropy=float(torch.special.entr(before).sum()) / math.log(2),
        kept=_kept(processed),
        candidates=tuple(Candidate(i, float(before[i]), float(after[i])) for i in shown),
        stages=tuple(_stage(name, logits, shown) for name, logits in stages),
        allowed=allowed,
        forced=allowed == 1,
    )


def _stage(name: str, logits: Tensor, shown: Sequence[int]) -> Stage:
    return Stage(name, _kept(logits), tuple(torch.softmax(logits.double(), -1)[list(shown)].tolist()))


def _kept(logits: Tensor) -> int:
    return int((logits > -torch.inf).sum())
