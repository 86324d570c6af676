"""Stochastic beam search: sample different sequences, without replacement (Kool et al. 2019).

Every sequence has a Gumbel-perturbed log-probability, and the k largest of these are a sample without
replacement. A beam search finds them, because the perturbed log-probability of a prefix is the largest of all
its continuations: children are perturbed under the condition that their largest is their parent's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from decodery.decoding.draw import draw_key, stream_seed
from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import process, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import StochasticBeamSearch
from decodery.decoding.rows import (
    Ending,
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
from decodery.decoding.trace import BeamCandidate
from decodery.kernels.vocabulary.dispatch import gumbel_noise, log_softmax


@dataclass(frozen=True, slots=True)
class _Ended:
    """A sequence that has ended and stays in the race with its perturbed log-probability."""

    perturbed: float
    logprob: float
    tokens: tuple[int, ...]
    finish: FinishReason
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """What a live row remembers: its place, its log-probability and the perturbed one, and what has ended."""

    place: int = 0
    logprob: float = 0.0
    perturbed: float = 0.0
    ended: tuple[_Ended, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class _Child:
    """A token after the prefix of row `parent`, `step` its log-probability; what it makes is filled in once
    it is kept."""

    parent: int
    token: int
    step: float
    logprob: float
    perturbed: float
    row: Row | None = None
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class _Race:
    """One request during a step, with the places of its rows: the `size` best of its children and of what
    has ended."""

    members: list[int]
    size: int
    children: list[_Child]
    ended: list[_Ended]
    kept: list[_Child]


class StochasticBeamMethod:
    """All prefixes of a request go on together and silently; the sequences are told when all have ended."""

    def needs(self, params: GenerationParams) -> Needs:
        """Nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Nothing beyond the last token."""
        return Proposal([((),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """The next prefixes of each request, or its sequences."""
        raw = guided(scores, [runs[0].at(0) for runs in scores.runs], rows)
        # Children share their parent's probability only if theirs sum to 1.
        logprobs = log_softmax(process(raw, rows))
        races = [
            _race(list(members), rows, logprobs)
            for _, members in groupby(range(len(rows)), key=lambda i: rows[i].request)
        ]
        for race in races:
            _follow(race, rows)
        _tell_logprobs([child for race in races for child in race.kept], rows, scores)
        return _verdict(races, rows, raw)


def _prefix(row: Row) -> _Prefix:
    assert row.state is None or isinstance(row.state, _Prefix)
    return row.state or _Prefix()


def _race(members: list[int], rows: Sequence[Row], logprobs: Tensor) -> _Race:
    strategy = rows[members[0]].params.strategy
    assert isinstance(strategy, StochasticBeamSearch)
    size = strategy.num_beams
    children = [child for i in members for child in _children(i, rows[i], logprobs[i], size)]
    ended = _prefix(rows[members[0]]).ended
    everyone: list[_Child | _Ended] = [*children, *ended]
    best = sorted(everyone, key=lambda one: -one.perturbed)[:size]
    return _Race(
        members,
        size,
        children,
        [one for one in best if isinstance(one, _Ended)],
        [one for one in best if isinstance(one, _Child)],
    )


def _children(parent: int, row: Row, logprobs: Tensor, size: int) -> list[_Child]:
    """The `size` children of a prefix with the largest perturbed log-probabilities (algorithm 1, lines 7 to
    14). `logprobs` is float32 `[vocab]`."""
    prefix = _prefix(row)
    (tokens,) = torch.nonzero(logprobs > -torch.inf, as_tuple=True)
    if not len(tokens):
        return []
    key = draw_key(stream_seed(row.seed, prefix.place), len(row.tokens))
    keys = torch.tensor([key], dtype=torch.int32, device=logprobs.device).expand(len(tokens), 2)
    steps = logprobs[tokens]
    top = (steps + gumbel_noise(keys, tokens.int())).topk(min(size, len(tokens)))
    values = top.values.tolist()
    return [
        _Child(
            parent,
            token,
            step,
            prefix.logprob + step,
            _conditioned(prefix.perturbed, prefix.logprob + value, value - values[0]),
        )
        for token, step, value in zip(
            tokens[top.indices].tolist(), steps[top.indices].tolist(), values, strict=True
        )
    ]


def _conditioned(largest: float, perturbed: float, below: float) -> float:
    """A child's perturbed log-probability, given that the largest of all children is `largest`; `below` is
    how far, at most 0, it lies below the one that was drawn largest (appendix B.3)."""
    if below == 0:
        return largest
    v = largest - perturbed + math.log(-math.expm1(below))
    return largest - max(0.0, v) - math.log1p(math.exp(-abs(v)))


def _follow(race: _Race, rows: Sequence[Row]) -> None:
    for child in race.kept:
        child.row = rows[child.parent].after(child.token)
        child.finish = finish_of(child.row)


def _tell_logprobs(children: Sequence[_Child], rows: Sequence[Row], scores: Scores) -> None:
    """Give the children of requests that want them their tokens' log-probabilities under the model."""
    wanted = [(c, n) for c in children if (n := rows[c.parent].params.logprobs) is not None]
    if not wanted:
        return
    told = logprobs_at(
        scores.logits,
        [scores.runs[child.parent][0].at(0) for child, _ in wanted],
        [child.token for child, _ in wanted],
        [count for _, count in wanted],
    )
    for (child, _), logprobs in zip(wanted, told, strict=True):
        child.logprobs = (logprobs,)


def _verdict(races: Sequence[_Race], rows: Sequence[Row], raw: Tensor) -> Verdict:
    """What becomes of each request: it goes on, ends, or fails."""
    survivors: list[Survivor] = []
    endings: list[Ending] = []
    failures: list[tuple[int, str]] = []
    for race in races:
        alive = [child for child in race.kept if child.finish is None]
        ended = [*race.ended, *(_ended(child, rows) for child in race.kept if child.finish is not None)]
        if alive:
            survivors += _survivors(alive, tuple(ended), rows)
        elif ended:
            endings += _endings(race, ended, rows)
        else:
            failures.append((race.members[0], why_impossible(raw[race.members], rows[race.members[0]])))
    told = [(race.members[0], _explained(race, rows)) for race in races if rows[race.members[0]].explain]
    return Verdict(survivors, endings, failures, told)


def _ended(child: _Child, rows: Sequence[Row]) -> _Ended:
    assert child.row is not None
    assert child.finish is not None
    return _Ended(
        child.perturbed,
        child.logprob,
        tuple(child.row.tokens[child.row.prompt_length :]),
        child.finish,
        _prefix(rows[child.parent]).logprobs + child.logprobs,
    )


def _survivors(alive: Sequence[_Child], ended: tuple[_Ended, ...], rows: Sequence[Row]) -> list[Survivor]:
    survivors = []
    for place, child in enumerate(alive):
        assert child.row is not None
        logprobs = _prefix(rows[child.parent]).logprobs + child.logprobs
        state = _Prefix(place, child.logprob, child.perturbed, ended, logprobs)
        survivors.append(Survivor(child.parent, replace(child.row, streams=(), state=state)))
    return survivors


def _endings(race: _Race, ended: Sequence[_Ended], rows: Sequence[Row]) -> list[Ending]:
    """The sequences in the order in which they were drawn; where there are no more, streams end with reason
    "error" and no tokens."""
    parent = race.members[0]
    drawn = sorted(ended, key=lambda one: -one.perturbed)
    told = [
        Ending(parent, stream, one.tokens, one.finish, one.logprob, one.logprobs)
        for stream, one in enumerate(drawn)
    ]
    return told + [
        Ending(parent, stream, (), "error") for stream in range(len(told), rows[parent].params.streams)
    ]


def _explained(race: _Race, rows: Sequence[Row]) -> tuple[BeamCandidate, ...]:
    """What became of each child; what ranks it is its perturbed log-probability."""
    alive = [child for child in race.kept if child.finish is None]
    places = {(child.parent, child.token): place for place, child in enumerate(alive)}
    kept = {(child.parent, child.token) for child in race.kept}
    return tuple(
        BeamCandidate(
            parent=_prefix(rows[child.parent]).place,
            token=child.token,
            logprob=child.step,
            score=child.perturbed,
            fate="kept" if key in places else "finished" if key in kept else "pruned",
            beam=places.get(key),
        )
        for child in race.children
        for key in [(child.parent, child.token)]
    )
