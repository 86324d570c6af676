"""Records what a step considered, as `decodery.decoding.trace` defines it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from decodery.decoding.trace import Candidate, Considered, Stage
from decodery.kernels.vocabulary.dispatch import gumbel_noise


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
        self._allowed: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __call__(self, name: str, using: Sequence[int], logits: Tensor) -> None:
        """Records how stage `name` changed the rows that it was applied to; keeps copies of `logits` only."""
        for i in using:
            if i not in self._last:
                continue
            if name == "grammar":
                self._allowed[i] = _allowed(logits[i], self._counts[i])
            if not torch.equal(logits[i], self._last[i]):
                self._last[i] = logits[i].clone()
                self._stages[i].append((name, self._last[i]))

    def considered(
        self, i: int, processed: Tensor, token: int, draw_key: tuple[int, int] | None = None
    ) -> Considered:
        """Returns what was considered when row i, with these processed logits `[vocab]`, chose `token`.

        `draw_key` is the key of the noise if the token was drawn.
        """
        return consider(
            self._raw[i],
            processed,
            token,
            self._counts[i],
            stages=self._stages.get(i, ()),
            allowed=self._allowed.get(i),
            draw_key=draw_key,
        )


def consider(
    raw: Tensor,
    processed: Tensor,
    token: int,
    count: int,
    *,
    stages: Sequence[tuple[str, Tensor]] = (),
    allowed: tuple[int, tuple[int, ...]] | None = None,
    draw_key: tuple[int, int] | None = None,
) -> Considered:
    """Returns what was considered when `token` was chosen.

    The candidates are the model's `count` likeliest tokens. `raw` and `processed` are logits `[vocab]`;
    `stages` are the logits after each processor that changed them; `allowed` is how many tokens a grammar
    allowed, and which if they are few; `draw_key` is the key of the noise.
    """
    before = torch.softmax(raw.double(), -1)
    after = torch.softmax(processed.double(), -1)
    top = before.topk(min(count, before.numel())).indices.tolist()
    shown = top if token in top else [*top, token]
    share = before[shown]
    return Considered(
        token=token,
        before=float(before[token]),
        after=float(after[token]),
        rank=int((raw > raw[token]).sum()) + 1,
        entropy=float(torch.special.entr(before).sum()) / math.log(2),
        kept=_kept(processed),
        candidates=_candidates(shown, share, after[shown], raw[shown], draw_key),
        stages=tuple(_stage(name, logits, shown) for name, logits in stages),
        allowed=None if allowed is None else allowed[0],
        forced=allowed is not None and allowed[0] == 1,
        allowed_tokens=() if allowed is None else allowed[1],
        tail=max(1.0 - float(share.sum()), 0.0),
        draw_key=draw_key,
    )


def _candidates(
    shown: Sequence[int], before: Tensor, after: Tensor, raw: Tensor, draw_key: tuple[int, int] | None
) -> tuple[Candidate, ...]:
    noise: Sequence[float | None] = [None] * len(shown)
    if draw_key is not None:
        keys = torch.tensor([draw_key], dtype=torch.int32, device=raw.device).expand(len(shown), 2)
        tokens = torch.tensor(shown, dtype=torch.int32, device=raw.device)
        noise = gumbel_noise(keys.contiguous(), tokens).tolist()
    values = (before.tolist(), after.tolist(), raw.tolist(), noise)
    return tuple(Candidate(*one) for one in zip(shown, *values, strict=True))


def _allowed(logits: Tensor, most: int) -> tuple[int, tuple[int, ...]]:
    """Returns how many tokens are possible, and which they are if there are no more than `most`."""
    count = _kept(logits)
    return count, tuple((logits > -torch.inf).nonzero()[:, 0].tolist()) if count <= most else ()


def _stage(name: str, logits: Tensor, shown: Sequence[int]) -> Stage:
    return Stage(name, _kept(logits), tuple(torch.softmax(logits.double(), -1)[list(shown)].tolist()))


def _kept(logits: Tensor) -> int:
    return int((logits > -torch.inf).sum())
