"""Contrastive search: of the likeliest tokens, takes one whose hidden state is unlike those of the text.

Su et al., A Contrastive Framework for Neural Text Generation (2022), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import process, why_impossible
from decodery.decoding.recorder import Choice, Recorder
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveSearch
from decodery.decoding.rows import Needs, Proposal, Row, Run, Scores, Survivor, Verdict
from decodery.decoding.stopping import finish_of
from decodery.decoding.strategies.combining import choice_with, guidance_at
from decodery.decoding.trace import Considered, Weighed
from decodery.kernels.vocabulary.dispatch import leaders, log_softmax

# Unit vectors `[tokens, width]`, one after the other; never changed in place.
_History = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Holds the likeliest next tokens, likeliest first and at most k, with their processed probabilities.

    `probabilities` is `[tokens]`. `logprobs` and `considered` have an entry for each token, to be reported if
    it is taken; they are empty where the request does not ask for them.
    """

    tokens: tuple[int, ...]
    probabilities: Tensor
    logprobs: tuple[TokenLogprobs, ...]
    considered: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Holds a row's state between steps: its next candidates, and the unit vectors of its hidden states."""

    candidates: _Candidates
    history: _History


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """Holds a row during a step, after its best candidate has been appended, if it had candidates.

    `new` is the number of tokens appended, 0 or 1. `position` scores the token that follows.
    """

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
    """Takes one token for each row a step, of k candidates that the model ran side by side.

    A row's first step only finds its candidates.
    """

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for the final hidden states of all tokens."""
        return Needs(hidden=True, context=True)

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Returns a branch for each candidate; one without drafts for a row that has none yet."""
        return Proposal([_branches(row) for row in rows])

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns each row with its best candidate appended and its next candidates found.

        A row whose new token nothing may follow survives for one step, so that the token is reported, and
        fails at the next.
        """
        steps = [
            _step(i, row, runs, scores) for i, (row, runs) in enumerate(zip(rows, scores.runs, strict=True))
        ]
        active = [step for step in steps if step.finish is None]
        found = dict(zip((s.parent for s in active), _candidates(active, scores), strict=True))
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
    """Returns the row with its best candidate appended.

    No token is appended if no drafts ran, as at the first step and after a preemption.
    """
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
    return tuple(Weighed(*values) for values in zip(candidates.tokens, *columns, strict=True))


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
    """Returns the degeneration penalty `[k]` of each candidate: its largest cosine with a state before it.

    `directions` is float32 `[k, width]`. Each row has products of its own, because a product over several
    rows could sum in another order.
    """
    return torch.stack([(chunk @ directions.T).amax(0) for chunk in history]).amax(0)


def _directions(hidden: Tensor) -> Tensor:
    """Returns the float32 unit vectors along hidden states `[n, width]`."""
    states = hidden.float()
    directions: Tensor = states / torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return directions


def _grown(history: _History, direction: Tensor) -> _History:
    """Returns the history with one more unit vector `[width]`.

    The old history is not changed, and the new one shares most of its memory. Chunks are merged so that each
    is longer than the next: then there are few, and a vector is copied few times.
    """
    chunks = [*history, direction[None]]
    while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return tuple(chunks)


def _candidates(steps: Sequence[_Step], scores: Scores) -> list[_Candidates]:
    """Returns, for each step, the likeliest tokens to follow; none has probability 0."""
    if not steps:
        return []
    rows = [step.row for step in steps]
    raw = guided(scores, [step.position for step in steps], rows)
    recorder = Recorder(raw, rows) if any(row.explain for row in rows) else None
    processed = process(raw, rows, recorder)
    found = [_likeliest(step, processed[i], scores.logits[step.position]) for i, step in enumerate(steps)]
    if recorder is None:
        return found
    choices = [Choice(i, token) for i, c in enumerate(found) if rows[i].explain for token in c.tokens]
    records: dict[int, list[Considered]] = {}
    for choice, record in zip(choices, recorder.considered(choices), strict=True):
        records.setdefault(choice.place, []).append(record)
    return [
        replace(
            c,
            considered=tuple(
                choice_with(record, scores, steps[i].position, rows[i], guidance_at)
                for record in records.get(i, ())
            ),
        )
        for i, c in enumerate(found)
    ]


def _likeliest(step: _Step, processed: Tensor, logits: Tensor) -> _Candidates:
    row = step.row
    best, places = leaders(processed[None], _strategy(row).top_k)
    # A NaN would be the largest: with one there are no candidates.
    count = int((best > -torch.inf).sum()) if best[0, 0] > -torch.inf else 0
    index = places[0, :count]
    tokens = tuple(index.tolist())
    logprobs: Sequence[TokenLogprobs] = ()
    if tokens and row.params.logprobs is not None:
        logprobs = token_logprobs(logits.expand(count, -1), tokens, [row.params.logprobs] * count)
    probabilities = log_softmax(processed[None])[0, index].exp()
    return _Candidates(tokens, probabilities, tuple(logprobs))
