"""Contrastive search: of the likeliest tokens, take the one whose hidden state repeats the text least.

Su et al., A Contrastive Framework for Neural Text Generation (2022), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import process, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveSearch
from decodery.decoding.rows import (
    FinishReason,
    Needs,
    Proposal,
    Row,
    Run,
    Scores,
    Survivor,
    TokenLogprobs,
    Verdict,
)
from decodery.decoding.stopping import finish_of
from decodery.decoding.trace import Considered, Recorder, Weighed
from decodery.kernels.vocabulary.dispatch import leaders, log_softmax

# Unit vectors `[tokens, width]`, one after the other; never changed in place.
_History = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """The likeliest next tokens in order, at most k, with their processed probabilities `[tokens]`.

    `logprobs` and `considered` hold what to tell of each should it be taken, when the request wants that.
    """

    tokens: tuple[int, ...]
    probabilities: Tensor
    logprobs: tuple[TokenLogprobs, ...]
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What a row remembers: who may come next, and the directions of all its tokens' hidden states."""

    candidates: _Candidates
    history: _History


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A row with the token that it took, if it took one, and the position that scores what follows it."""

    parent: int
    row: Row
    history: _History
    position: int
    new: int = 0
    branch: int = 0
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    considered: tuple[Considered, ...] = ()


class ContrastiveMethod:
    """A token for each row a step, taken of k that have run side by side; the first step only finds these."""

    def needs(self, params: GenerationParams) -> Needs:
        """The final hidden states of all tokens."""
        return Needs(hidden=True, context=True)

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """A branch for each candidate; where there are none yet, only what is known."""
        return Proposal([_branches(row) for row in rows])

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Take each row's best candidate, and find those for the token after it.

        A row for which nothing may follow its new token lives on for one step, so that this token is told,
        and then fails.
        """
        steps = [
            _step(i, row, runs, scores) for i, (row, runs) in enumerate(zip(rows, scores.runs, strict=True))
        ]
        going = [step for step in steps if step.finish is None]
        found = dict(zip((s.parent for s in going), _candidates(going, scores), strict=True))
        survivors: list[Survivor] = []
        failures: list[tuple[int, str]] = []
        for step in steps:
            candidates = found.get(step.parent)
            if candidates is None:
                survivors.append(_survivor(step, step.row, 0))
            elif candidates.tokens or step.new:
                row = replace(step.row, state=_State(candidates, step.history))
                survivors.append(_survivor(step, row, step.new if candidates.tokens else 0))
            else:
                raw = guided(scores, [step.position], [step.row])
                failures.append((step.parent, why_impossible(raw[0], step.row)))
        return Verdict(survivors, failures=failures)


def _state(row: Row) -> _State | None:
    assert row.state is None or isinstance(row.state, _State)
    return row.state


def _branches(row: Row) -> tuple[tuple[int, ...], ...]:
    state = _state(row)
    tokens = () if state is None else state.candidates.tokens
    return tuple((token,) for token in tokens) or ((),)


def _strategy(row: Row) -> ContrastiveSearch:
    assert isinstance(row.params.strategy, ContrastiveSearch)
    return row.params.strategy


def _step(parent: int, row: Row, runs: Sequence[Run], scores: Scores) -> _Step:
    """What a row's runs come to. Without drafts, as at first and after a preemption, no token is taken."""
    assert scores.hidden is not None
    state = _state(row)
    if not runs[0].tokens:
        position = runs[0].at(0)
        if state is not None:
            return _Step(parent, row, state.history, position)
        assert scores.context is not None
        states = torch.cat((scores.context[parent], scores.hidden[position : position + 1]))
        return _Step(parent, row, (_directions(states),), position)
    assert state is not None
    positions = [run.at(1) for run in runs]
    directions = _directions(scores.hidden[torch.tensor(positions, device=scores.hidden.device)])
    candidates = state.candidates
    similarities = _similarities(directions, state.history)
    alpha = _strategy(row).penalty_alpha
    ranking = (1 - alpha) * candidates.probabilities - alpha * similarities
    best = int(ranking.argmax())
    after = row.after(candidates.tokens[best])
    return _Step(
        parent,
        after,
        _grown(state.history, directions[best]),
        positions[best],
        new=1,
        branch=best,
        finish=finish_of(after),
        logprobs=candidates.logprobs[best : best + 1],
        considered=tuple(
            replace(c, weighed=_weighed(candidates, similarities, ranking))
            for c in candidates.considered[best : best + 1]
        ),
    )


def _weighed(candidates: _Candidates, similarities: Tensor, ranking: Tensor) -> tuple[Weighed, ...]:
    columns = (candidates.probabilities.tolist(), similarities.tolist(), ranking.tolist())
    return tuple(Weighed(*told) for told in zip(candidates.tokens, *columns, strict=True))


def _survivor(step: _Step, row: Row, keep: int) -> Survivor:
    return Survivor(
        parent=step.parent,
        row=row,
        keep=keep,
        branch=step.branch,
        finish=step.finish,
        logprobs=step.logprobs,
        considered=step.considered,
    )


def _similarities(directions: Tensor, history: _History) -> Tensor:
    """The degeneration penalty `[k]` of each candidate: its largest cosine with a state before it.

    `directions` is float32 `[k, width]`. The products are one row's only, so that its batch-mates do not
    change the order of a sum.
    """
    return torch.stack([(chunk @ directions.T).amax(0) for chunk in history]).amax(0)


def _directions(hidden: Tensor) -> Tensor:
    """The float32 unit vectors along hidden states `[n, width]`."""
    states = hidden.float()
    directions: Tensor = states / torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return directions


def _grown(history: _History, direction: Tensor) -> _History:
    """The history with one more `[width]`; it shares most with the one before, which stays as it was.

    Chunks merge such that each is longer than the next: there are few, and a vector is copied few times.
    """
    chunks = [*history, direction[None]]
    while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return tuple(chunks)


def _candidates(steps: Sequence[_Step], scores: Scores) -> list[_Candidates]:
    """For each step the likeliest tokens to follow; none of probability 0."""
    if not steps:
        return []
    rows = [step.row for step in steps]
    raw = guided(scores, [step.position for step in steps], rows)
    recorder = Recorder(raw, rows) if any(row.explain for row in rows) else None
    processed = process(raw, rows, recorder)
    return [
        _likeliest(i, step, processed[i], scores.logits[step.position], recorder)
        for i, step in enumerate(steps)
    ]


def _likeliest(
    i: int, step: _Step, processed: Tensor, logits: Tensor, recorder: Recorder | None
) -> _Candidates:
    row = step.row
    best, places = leaders(processed[None], _strategy(row).top_k)
    # A NaN counts as the largest: then there are none.
    count = int((best > -torch.inf).sum()) if best[0, 0] > -torch.inf else 0
    index = places[0, :count]
    tokens = tuple(index.tolist())
    told: Sequence[TokenLogprobs] = ()
    if tokens and row.params.logprobs is not None:
        told = token_logprobs(logits.expand(count, -1), tokens, [row.params.logprobs] * count)
    considered: Sequence[Considered] = ()
    if recorder is not None and row.explain:
        considered = [recorder.considered(i, processed, token) for token in tokens]
    return _Candidates(tokens, log_softmax(processed[None])[0, index].exp(), tuple(told), tuple(considered))
