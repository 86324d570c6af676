"""Builds the scores of a step, groups its rows by method, and lets each method judge its group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from decodery.decoding.rows import Method, Row, Run, Scores, Verdict
from decodery.engine.batch import Batch, Chunk
from decodery.engine.captured_steps import States
from decodery.engine.runner import Runner
from decodery.engine.second_model import SecondModel
from decodery.errors import CallbackError

Drafted = Mapping[Row, Tensor]


@dataclass(slots=True)
class JudgedGroup:
    """Holds the rows that one method judges in a step, and the chunks of each row's branches in order."""

    method: Method
    rows: list[Row] = field(default_factory=list)
    branches: list[list[Chunk]] = field(default_factory=list)


def groups_to_judge(batch: Batch) -> list[JudgedGroup]:
    """Returns the judged rows of a batch, grouped by method; the rows of one request are adjacent."""
    groups: dict[Method, JudgedGroup] = {}
    previous: Chunk | None = None
    for chunk in batch.chunks:
        if not chunk.judged:
            continue
        group = groups.setdefault(chunk.request.method, JudgedGroup(chunk.request.method))
        if previous is not None and (previous.request, previous.place) == (chunk.request, chunk.place):
            group.branches[-1].append(chunk)
        else:
            group.rows.append(chunk.sequence.row)
            group.branches.append([chunk])
        previous = chunk
    return list(groups.values())


def judge_group(group: JudgedGroup, scores: Scores) -> Verdict:
    """Returns the method's verdict on a group.

    A request whose callback fails is among the failures; the other rows are then judged again without it.
    """
    failures: list[tuple[int, str]] = []
    left = list(range(len(group.rows)))
    while left:
        try:
            verdict = group.method.judge([group.rows[i] for i in left], scores.of_rows(left))
        except CallbackError as error:
            failures += [(i, str(error)) for i in left if group.rows[i].request == error.request]
            left = [i for i in left if group.rows[i].request != error.request]
        else:
            if not failures:
                return verdict
            verdict = verdict.of_group(left)
            return replace(verdict, failures=[*verdict.failures, *failures])
    return Verdict((), failures=failures)


class ScoresBuilder:
    """Builds the scores of a step's groups from its hidden `states`.

    One product computes the logits of all groups. `drafted` has for each row the processed logits from which
    its second model drew the drafts, and `given` the number of its drafts that are given.
    """

    def __init__(
        self, runner: Runner, batch: Batch, states: States, drafted: Drafted, given: Mapping[Row, int]
    ) -> None:
        self._runner = runner
        self._states = states
        self._drafted = drafted
        self._given = given
        self._base: dict[int, int] = {}
        start = 0
        for chunk in batch.chunks:
            self._base[id(chunk)] = start
            start += chunk.length

    def build(self, groups: Sequence[JudgedGroup]) -> Iterator[Scores]:
        """Yields the scores of each group, in their order."""
        main = [[i for b in g.branches for c in b for i in self._positions(c)] for g in groups]
        of_companions = [
            [
                i
                for b in g.branches
                for c in b
                if c.companion is not None
                for i in self._positions(c.companion)
            ]
            for g in groups
        ]
        logits = self._runner.logits(
            self._states.final, [i for part in (*main, *of_companions) for i in part]
        )
        if len(groups) == 1 and not of_companions[0]:
            yield self._group_scores(groups[0], main[0], logits, None)
            return
        parts = torch.split(logits, [len(part) for part in (*main, *of_companions)])
        for group, indices, own, companion in zip(groups, main, parts, parts[len(groups) :], strict=False):
            yield self._group_scores(group, indices, own, companion if len(companion) else None)

    def _positions(self, chunk: Chunk) -> range:
        """Returns the positions in the batch of the scored tokens of a chunk: the last known token, if it
        runs, and the drafts, but no token before a given draft."""
        base = self._base[id(chunk)]
        return range(base + max(chunk.count - 1 + self._unscored(chunk), 0), base + chunk.length)

    def _unscored(self, chunk: Chunk) -> int:
        """Returns how many of a chunk's first positions get no scores, since a given draft follows them."""
        if not self._given or chunk.companion is not None or chunk.request.needs.amateur:
            return 0
        return min(self._given.get(chunk.sequence.row, 0), len(chunk.drafts))

    def _group_scores(
        self, group: JudgedGroup, indices: list[int], logits: Tensor, companion: Tensor | None
    ) -> Scores:
        needs = [branches[0].request.needs for branches in group.branches]
        hidden = self._states.final
        return Scores(
            logits=logits,
            runs=self._runs(group),
            companion=companion,
            companion_at=None if companion is None else self._companions(group),
            hidden=hidden[torch.tensor(indices, device=hidden.device)]
            if any(n.hidden for n in needs)
            else None,
            layers=self._layers(sorted({layer for n in needs for layer in n.layers}), indices),
            amateur=self._contrast_logits(group, logits) if any(n.amateur for n in needs) else None,
            context=self._context(group),
        )

    def _runs(self, group: JudgedGroup) -> list[tuple[Run, ...]]:
        runs = []
        start = 0
        for row, branches in zip(group.rows, group.branches, strict=True):
            found = []
            for chunk in branches:
                end = start + len(self._positions(chunk))
                found.append(Run(chunk.drafts, end - 1 - len(chunk.drafts), self._drafted.get(row)))
                start = end
            runs.append(tuple(found))
        return runs

    def _layers(self, layers: Sequence[int], indices: list[int]) -> dict[int, Tensor]:
        """Returns the logits read off after each layer, computed by one product."""
        if not layers:
            return {}
        hidden = torch.cat([self._states.layers[layer][indices] for layer in layers])
        logits = self._runner.logits(hidden, list(range(len(hidden))))
        return dict(zip(layers, torch.split(logits, len(indices)), strict=True))

    def _context(self, group: JudgedGroup) -> dict[int, Tensor]:
        """Returns the prompt states that requests have collected, by row, and clears them there."""
        context = {}
        for i, branches in enumerate(group.branches):
            collected = branches[0].request.context
            if collected is not None:
                context[i] = torch.cat(collected)[: len(group.rows[i].tokens) - 1]
                branches[0].request.context = None
        return context

    def _companions(self, group: JudgedGroup) -> dict[int, int]:
        """Returns the index among the companions' positions of each position that has a companion."""
        found = {}
        position = place = 0
        for chunk in (c for branches in group.branches for c in branches):
            length = len(self._positions(chunk))
            if chunk.companion is not None:
                # Both end at the same token; the companion may have one position more at its start.
                extra = len(self._positions(chunk.companion)) - length
                for j in range(length):
                    found[position + j] = place + extra + j
                place += length + extra
            position += length
        return found

    def _contrast_logits(self, group: JudgedGroup, logits: Tensor) -> Tensor:
        """Returns the logits of the rows' contrast models at the positions of `logits`; 0 elsewhere."""
        result = torch.zeros_like(logits)
        rows: dict[int, tuple[SecondModel, list[tuple[Row, tuple[int, ...]]], list[int | None]]] = {}
        position = 0
        for row, branches in zip(group.rows, group.branches, strict=True):
            for chunk in branches:
                length = len(self._positions(chunk))
                second_model = chunk.request.contrast_model
                if second_model is not None:
                    _, runs, places = rows.setdefault(id(second_model), (second_model, [], []))
                    runs.append((row, chunk.drafts))
                    # A second model scores the last known token even if the first one computed it in an
                    # earlier step.
                    places += [None] * (chunk.count == 0)
                    places += range(position, position + length)
                position += length
        for second_model, runs, places in rows.values():
            for place, scores in zip(places, second_model.logits(runs), strict=True):
                if place is not None:
                    result[place] = scores
        return result
