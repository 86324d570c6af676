"""Records what a step considered, as `decodery.decoding.trace` defines it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from decodery.decoding.trace import Candidate, Considered, Stage


class Explained(Protocol):
    """Says how many candidates of its choices a row explains; 0 is none."""

    @property
    def explain(self) -> int:
        """Returns the number of candidates."""


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
