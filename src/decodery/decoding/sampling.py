"""Greedy decoding and sampling, with any number of streams and with drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from decodery.decoding.choosing import choose, why_impossible
from decodery.decoding.guidance import guided
from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.params import GenerationParams
from decodery.decoding.pipeline import process
from decodery.decoding.rows import (
    FinishReason,
    Needs,
    Proposal,
    Row,
    Scores,
    Survivor,
    TokenLogprobs,
    Verdict,
)
from decodery.decoding.stopping import finish_of
from decodery.decoding.trace import Considered, consider


@dataclass(slots=True)
class _Walk:
    """One stream of a row on its way along the row's drafts."""

    parent: int
    row: Row
    drafts: tuple[int, ...]
    first: int
    steps: int = 0
    kept: int = 0
    finish: FinishReason | None = None
    done: bool = False
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    considered: list[Considered] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.first + self.steps


class SamplingMethod:
    """One token for each row a step, and more as far as drafts agree; a row of several streams parts into
    them."""

    def needs(self, params: GenerationParams) -> Needs:
        """Nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Nothing beyond the last token."""
        return Proposal([((),)] * len(rows))

    def extend(self, rows: Sequence[Row], logits: Tensor) -> tuple[Sequence[int], Tensor]:
        """What each row would choose by these logits."""
        processed = process(logits, rows)
        return choose(processed, rows), processed

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """The logits that the rows at these positions choose by, before processing."""
        return guided(scores, positions, rows)

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """One survivor for each stream of each row."""
        walks = [
            _Walk(i, row if len(row.streams) == 1 else replace(row, streams=(stream,)), run.tokens, run.at(0))
            for i, (row, (run,)) in enumerate(zip(rows, scores.runs, strict=True))
            for stream in row.streams
        ]
        failures: list[tuple[int, str]] = []
        going = walks
        while going:
            failures += self._advance(going, scores)
            going = [w for w in going if not w.done]
        failed = {parent for parent, _ in failures}
        survivors = [
            Survivor(
                parent=w.parent,
                row=w.row,
                keep=w.kept,
                finish=w.finish,
                logprobs=tuple(w.logprobs),
                considered=tuple(w.considered),
                drafts=w.drafts,
            )
            for w in walks
            if w.parent not in failed
        ]
        return Verdict(survivors, failures=failures)

    def _advance(self, walks: Sequence[_Walk], scores: Scores) -> list[tuple[int, str]]:
        """Choose the next token of each walk, and say for which there is none."""
        # Streams that have not parted share their row's processed logits.
        shared: dict[int, int] = {}
        for k, walk in enumerate(walks):
            shared.setdefault(walk.parent if not walk.steps else -1 - k, k)
        index = {key: place for place, key in enumerate(shared)}
        heads = [walks[k] for k in shared.values()]
        raw = self.logits(scores, [w.position for w in heads], [w.row for w in heads])
        processed = process(raw, [w.row for w in heads])
        places = [index[w.parent if not w.steps else -1 - k] for k, w in enumerate(walks)]
        own = processed if places == list(range(len(heads))) else processed[places]
        tokens = choose(own, [w.row for w in walks])
        possible = own[range(len(walks)), tokens] > -torch.inf
        logprobs = _logprobs(scores, walks, tokens)
        failures = []
        for k, (walk, token, able) in enumerate(zip(walks, tokens, possible.tolist(), strict=True)):
            if not able:
                walk.done = True
                failures.append((walk.parent, why_impossible(raw[places[k]])))
                continue
            if walk.row.explain:
                walk.considered.append(
                    consider(raw[places[k]], processed[places[k]], token, walk.row.explain)
                )
            walk.logprobs += logprobs.get(k, ())
            _take(walk, token)
        return failures


def _take(walk: _Walk, token: int) -> None:
    walk.row = walk.row.after(token)
    walk.finish = finish_of(walk.row)
    agrees = walk.steps < len(walk.drafts) and walk.drafts[walk.steps] == token
    walk.kept += agrees
    walk.steps += 1
    walk.done = walk.finish is not None or not agrees


def _logprobs(
    scores: Scores, walks: Sequence[_Walk], tokens: Sequence[int]
) -> dict[int, tuple[TokenLogprobs, ...]]:
    wanted = [
        (k, walk.position, token, count)
        for k, (walk, token) in enumerate(zip(walks, tokens, strict=True))
        if (count := walk.row.params.logprobs) is not None
    ]
    if not wanted:
        return {}
    keys, positions, chosen, counts = zip(*wanted, strict=True)
    raw = scores.logits[torch.tensor(positions, device=scores.logits.device)]
    results = token_logprobs(raw, chosen, counts)
    return {key: (result,) for key, result in zip(keys, results, strict=True)}
