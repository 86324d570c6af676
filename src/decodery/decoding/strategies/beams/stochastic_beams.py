"""Stochastic beam search: samples different sequences, without replacement (Kool et al. 2019).

Every sequence has a Gumbel-perturbed log-probability, and the k sequences with the largest of these are a
sample without replacement. A beam search finds them, because a prefix has the largest perturbed
log-probability of all its continuations. So the perturbed log-probabilities of a prefix's children are drawn
under the condition that the largest of them is the prefix's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.draw import draw_key, stream_seed
from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import process, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import StochasticBeamSearch
from decodery.decoding.rows import Ending, Needs, Proposal, Row, Scores, Survivor, Verdict
from decodery.decoding.stopping import finish_of
from decodery.decoding.trace import BeamCandidate
from decodery.kernels.vocabulary.dispatch import gumbel_noise, log_softmax


@dataclass(frozen=True, slots=True)
class _Ended:
    """Holds a sequence that has ended. It still competes, by its perturbed log-probability."""

    perturbed: float
    logprob: float
    tokens: tuple[int, ...]
    finish: FinishReason
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Holds a live row's state between steps.

    `place` is its index among the request's prefixes. `ended` are the request's ended sequences, shared by
    all of its rows.
    """

    place: int = 0
    logprob: float = 0.0
    perturbed: float = 0.0
    ended: tuple[_Ended, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class _Child:
    """Holds a candidate: a token after the prefix of row `parent`.

    `step` is the token's log-probability, `logprob` that of the whole sequence. `row` and the fields after it
    are set once the candidate is kept.
    """

    parent: int
    token: int
    step: float
    logprob: float
    perturbed: float
    row: Row | None = None
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class _Search:
    """Holds one request during a step; `members` are the indices of its rows.

    Of all `children` and ended sequences the `size` best stay: `kept` and `ended`.
    """

    members: list[int]
    size: int
    children: list[_Child]
    ended: list[_Ended]
    kept: list[_Child]


class StochasticBeamMethod:
    """Extends all prefixes of a request together, and returns the sequences once all have ended.

    Until then its rows stand for no stream.
    """

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Returns no drafts: only the last known token is run."""
        return Proposal([((),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns the next prefixes of each request, or its sequences once all have ended."""
        raw = guided(scores, [runs[0].at(0) for runs in scores.runs], rows)
        # Normalised after processing: a prefix's probability is the sum of its children's.
        logprobs = log_softmax(process(raw, rows))
        searches = [
            _search(list(members), rows, logprobs)
            for _, members in groupby(range(len(rows)), key=lambda i: rows[i].request)
        ]
        for search in searches:
            _append_tokens(search, rows)
        _add_logprobs([child for search in searches for child in search.kept], rows, scores)
        return _verdict(searches, rows, raw)


def _prefix(row: Row) -> _Prefix:
    assert row.state is None or isinstance(row.state, _Prefix)
    return row.state or _Prefix()


def _search(members: list[int], rows: Sequence[Row], logprobs: Tensor) -> _Search:
    strategy = rows[members[0]].params.strategy
    assert isinstance(strategy, StochasticBeamSearch)
    size = strategy.num_beams
    children = [child for i in members for child in _children(i, rows[i], logprobs[i], size)]
    ended = _prefix(rows[members[0]]).ended
    competing: list[_Child | _Ended] = [*children, *ended]
    best = sorted(competing, key=lambda one: -one.perturbed)[:size]
    return _Search(
        members,
        size,
        children,
        [one for one in best if isinstance(one, _Ended)],
        [one for one in best if isinstance(one, _Child)],
    )


def _children(parent: int, row: Row, logprobs: Tensor, size: int) -> list[_Child]:
    """Returns the `size` children of a prefix with the largest perturbed log-probabilities.

    This is algorithm 1, lines 7 to 14. `logprobs` is float32 `[vocab]`.
    """
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
    """Returns a child's perturbed log-probability under the condition that the largest of all is `largest`.

    `perturbed` is the unconditional one. `below`, at most 0, is its difference to the largest unconditional
    one (appendix B.3).
    """
    if below == 0:
        return largest
    v = largest - perturbed + math.log(-math.expm1(below))
    return largest - max(0.0, v) - math.log1p(math.exp(-abs(v)))


def _append_tokens(search: _Search, rows: Sequence[Row]) -> None:
    """Sets the row and the finish reason of the children that are kept."""
    for child in search.kept:
        child.row = rows[child.parent].after(child.token)
        child.finish = finish_of(child.row)


def _add_logprobs(children: Sequence[_Child], rows: Sequence[Row], scores: Scores) -> None:
    """Sets the log-probability of each child's token under the model, where its request asks for it."""
    wanted = [(c, n) for c in children if (n := rows[c.parent].params.logprobs) is not None]
    if not wanted:
        return
    found = logprobs_at(
        scores.logits,
        [scores.runs[child.parent][0].at(0) for child, _ in wanted],
        [child.token for child, _ in wanted],
        [count for _, count in wanted],
    )
    for (child, _), logprobs in zip(wanted, found, strict=True):
        child.logprobs = (logprobs,)


def _verdict(searches: Sequence[_Search], rows: Sequence[Row], raw: Tensor) -> Verdict:
    """Returns the verdict: each request continues, ends or fails."""
    survivors: list[Survivor] = []
    endings: list[Ending] = []
    failures: list[tuple[int, str]] = []
    for search in searches:
        alive = [child for child in search.kept if child.finish is None]
        ended = [*search.ended, *(_ended(child, rows) for child in search.kept if child.finish is not None)]
        if alive:
            survivors += _survivors(alive, tuple(ended), rows)
        elif ended:
            endings += _endings(search, ended, rows)
        else:
            failures.append((search.members[0], why_impossible(raw[search.members], rows[search.members[0]])))
    explained = [(s.members[0], _explained(s, rows)) for s in searches if rows[s.members[0]].explain]
    return Verdict(survivors, endings, failures, explained)


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


def _endings(search: _Search, ended: Sequence[_Ended], rows: Sequence[Row]) -> list[Ending]:
    """Returns the sequences in the order in which they were drawn, one for each stream.

    If there are fewer sequences than streams, the other streams end with reason "error" and no tokens.
    """
    parent = search.members[0]
    drawn = sorted(ended, key=lambda one: -one.perturbed)
    completed = [
        Ending(parent, stream, one.tokens, one.finish, one.logprob, one.logprobs)
        for stream, one in enumerate(drawn)
    ]
    streams = range(len(completed), rows[parent].params.streams)
    return completed + [Ending(parent, stream, (), "error") for stream in streams]


def _explained(search: _Search, rows: Sequence[Row]) -> tuple[BeamCandidate, ...]:
    """Returns, for a trace, what became of each child; its `score` is its perturbed log-probability."""
    alive = [child for child in search.kept if child.finish is None]
    places = {(child.parent, child.token): place for place, child in enumerate(alive)}
    kept = {(child.parent, child.token) for child in search.kept}
    return tuple(
        BeamCandidate(
            parent=_prefix(rows[child.parent]).place,
            token=child.token,
            logprob=child.step,
            score=child.perturbed,
            fate="kept" if key in places else "finished" if key in kept else "pruned",
            beam=places.get(key),
        )
        for child in search.children
        for key in [(child.parent, child.token)]
    )
