"""Beam search: keep the likeliest sequences at each step, and return the best that ended.

The basic search follows Sutskever et al. 2014 (section 3.2) with the length normalisation of Wu et al. 2016;
groups that keep apart are in `diverse`, phrases that a text must hold in `constraints`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import plans_of, process, rules_out, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
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
from decodery.decoding.strategies.beam_candidates import Candidate, drawn, likeliest, likeliest_after
from decodery.decoding.strategies.constrained_beams import Progress, beginning, holds_all, in_banks
from decodery.decoding.strategies.diverse_beams import keep_apart, taken_by_ended
from decodery.decoding.strategies.hypotheses import Hypotheses, Hypothesis, endings, normalised
from decodery.decoding.trace import BeamCandidate
from decodery.kernels.vocabulary.dispatch import log_softmax

_UNMET = (
    "force_words: no beam holds all of them at its end; raise num_beams or max_tokens, or lift what bans them"
)
# Where even these all end, as by a rule that ends every text, the beam stays short.
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Beam:
    """What a live row remembers.

    `place` is its place among the request's beams (those of a group side by side), `total` its sum of
    log-probabilities, `progress` how far it is with the phrases that are forced. `ended` holds the ended
    sequences of each group and is shared by all rows of the request.
    """

    place: int
    total: float
    progress: Progress
    ended: tuple[Hypotheses, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class _Child:
    """A candidate that was looked at: the row that it makes of `rows[parent]`, and whether that ends."""

    candidate: Candidate
    parent: int
    row: Row
    progress: Progress
    finish: FinishReason | None
    logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether its text holds all forced phrases."""
        return self.progress.complete or holds_all(self.row)


@dataclass(slots=True)
class _Group:
    """One group of a request's beams during a step; its places are `size` from `first` on.

    `parents` are its rows' places among all that are judged. Of the candidates, `kept` live on and `ended`
    have ended, in the order of their sums.
    """

    strategy: BeamSearch
    first: int
    size: int
    hypotheses: Hypotheses
    parents: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    beams: list[Beam] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    kept: list[_Child] = field(default_factory=list)
    ended: list[_Child] = field(default_factory=list)

    @property
    def totals(self) -> list[float]:
        """The sums of its beams so far."""
        return [beam.total for beam in self.beams]


@dataclass(slots=True)
class _Search:
    """One request during a step; `impossible` is what to say if it cannot go on and has nothing to show."""

    row: Row
    parent: int
    groups: list[_Group]
    impossible: str = "no beam is left"


class BeamMethod:
    """All beams of a request go on together and silently; what was found is told when it is decided."""

    def needs(self, params: GenerationParams) -> Needs:
        """Nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Nothing beyond the last token."""
        return Proposal([((),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """The next beams of each request, or its completions."""
        searches = list(_searches(rows))
        for turn in range(max(len(s.groups) for s in searches)):
            _take_turn(searches, turn, scores)
        _tell_logprobs(searches, scores)
        for search in searches:
            for group in search.groups:
                if group.rows:
                    _settle(group)
        return _verdict(searches)


def _searches(rows: Sequence[Row]) -> Iterator[_Search]:
    for _, members in groupby(enumerate(rows), key=lambda member: member[1].request):
        numbered = list(members)
        parent, row = numbered[0]
        strategy = row.params.strategy
        assert isinstance(strategy, BeamSearch)
        size = strategy.num_beams // strategy.num_beam_groups
        groups = [_Group(strategy, i * size, size, h) for i, h in enumerate(_beam(row, strategy, 0).ended)]
        for group in groups:
            # At first every group starts from the request's only row.
            for i, r in numbered:
                beam = _beam(r, strategy, group.first)
                if group.first <= beam.place < group.first + size:
                    group.parents.append(i)
                    group.rows.append(r)
                    group.beams.append(beam)
        search = _Search(row, parent, groups)
        if strategy.force_words:
            search.impossible = _UNMET
        yield search


def _beam(row: Row, strategy: BeamSearch, place: int) -> Beam:
    """What the row remembers; before its first step it stands at `place`."""
    if row.state is None:
        count = strategy.num_beam_groups
        ended = (Hypotheses(strategy.num_beams // count),) * count
        return Beam(place, 0.0, beginning(strategy), ended)
    assert isinstance(row.state, Beam)
    return row.state


def _take_turn(searches: Sequence[_Search], turn: int, scores: Scores) -> None:
    """Let this group of each request, where it still lives, choose its next beams."""
    taking = [s for s in searches if turn < len(s.groups) and s.groups[turn].rows]
    if not taking:
        return
    rows = [row for s in taking for row in s.groups[turn].rows]
    positions = [scores.runs[i][0].at(0) for s in taking for i in s.groups[turn].parents]
    raw = guided(scores, positions, rows)
    groups = [s.groups[turn] for s in taking]
    parts = _split(raw, groups)
    if not any(_rearranges(group, turn) for group in groups):
        for group, logits in zip(groups, parts, strict=True):
            _fill(group, partial(likeliest_after, logits, group.totals))
    else:
        _choose_processed(taking, turn, raw, rows)
    for search, group, logits in zip(taking, groups, parts, strict=True):
        if not group.candidates:
            search.impossible = why_impossible(logits, group.rows[0])


def _rearranges(group: _Group, turn: int) -> bool:
    """Whether the group needs more of its rows' log-probabilities than the largest, or others."""
    strategy = group.strategy
    apart = turn > 0 and strategy.diversity_penalty != 0
    if apart or strategy.sample or strategy.force_words or group.rows[0].params.guided:
        return True
    return any(plans_of(group.rows))


def _split(logits: Tensor, groups: Sequence[_Group]) -> Sequence[Tensor]:
    """Each group's rows."""
    return torch.split(logits, [len(group.rows) for group in groups]) if len(groups) > 1 else (logits,)


def _choose_processed(searches: Sequence[_Search], turn: int, raw: Tensor, rows: Sequence[Row]) -> None:
    """Let this group of each request choose by the processed log-probabilities of its `rows`."""
    groups = [s.groups[turn] for s in searches]
    logprobs = _logprobs(raw, rows)
    plain = _split(logprobs, groups)
    for search, group, part in zip(searches, groups, plain, strict=True):
        taken = [token for earlier in search.groups[:turn] for token in _taken(earlier, search.row.end_ids)]
        keep_apart(part, taken, group.strategy.diversity_penalty)
    processed = _split(process(logprobs, rows), groups)
    for group, part, own in zip(groups, processed, plain, strict=True):
        _fill(group, partial(_candidates, group, part))
        if group.strategy.force_words and group.candidates:
            _fill_banks(group, part, own)


def _logprobs(raw: Tensor, rows: Sequence[Row]) -> Tensor:
    """The log-probabilities by which beams are ranked. Guided ones are ranked by what guidance made of their
    log-probabilities, as transformers ranks them."""
    logprobs = log_softmax(raw)
    led = [i for i, row in enumerate(rows) if row.params.guided]
    if led:
        logprobs[led] = raw[led]
    return logprobs


def _taken(group: _Group, end_ids: frozenset[int]) -> list[int]:
    """The tokens that a group which had its turn takes at this step."""
    if group.hypotheses.done:
        return taken_by_ended(group.hypotheses, end_ids)
    return [child.candidate.token for child in group.kept]


def _fill(group: _Group, candidates: Callable[[int], list[Candidate]]) -> None:
    """Choose the group's next beams among the best candidates, of which `candidates` gives so many."""
    # Enough for a full beam when no more than the end tokens end a sequence; else more are looked at.
    count = max(2, 1 + len(group.rows[0].end_ids)) * group.size
    while not _look_at(group, candidates(count)):
        if len(group.candidates) < count or count >= _MOST_LOOKED_AT:
            break
        count *= 2


def _candidates(group: _Group, logprobs: Tensor, count: int) -> list[Candidate]:
    if not group.strategy.sample:
        return likeliest(logprobs, group.totals, count)
    streams = [beam.place for beam in group.beams]
    return drawn(logprobs, group.totals, group.rows, streams, count)


def _look_at(group: _Group, candidates: list[Candidate]) -> bool:
    """Sort candidates, best first, into those that end and those that live on, until the beam is full.

    A sequence may only end where it is among the best `size`. Returns whether the beam is full.
    """
    group.candidates, group.kept, group.ended = candidates, [], []
    for rank, candidate in enumerate(candidates):
        child = _child(group, candidate)
        if child.finish != "stop":
            group.kept.append(child)
        elif rank < group.size and child.complete:
            group.ended.append(child)
        if len(group.kept) == group.size:
            return True
    return False


def _child(group: _Group, candidate: Candidate) -> _Child:
    row = group.rows[candidate.beam].after(candidate.token)
    progress = group.beams[candidate.beam].progress.after(candidate.token)
    return _Child(candidate, group.parents[candidate.beam], row, progress, finish_of(row))


def _fill_banks(group: _Group, logprobs: Tensor, plain: Tensor) -> None:
    """Let sequences that lead the forced phrases on compete for the places of those kept.

    Truncation is no ban: a token that only it cut away may lead a phrase on, with its plain log-probability.
    """
    known = {(child.candidate.beam, child.candidate.token) for child in group.kept}
    leading = [
        (i, token)
        for i, beam in enumerate(group.beams)
        for token in beam.progress.next_tokens()
        if (i, token) not in known
    ]
    if not leading:
        return
    beams, tokens = zip(*leading, strict=True)
    pool = list(group.kept)
    for beam, token, value in zip(beams, tokens, logprobs[beams, tokens].tolist(), strict=True):
        if value == -torch.inf:
            if rules_out(plain[beam], group.rows[beam], token):
                continue
            value = float(plain[beam, token])
        candidate = Candidate(beam, token, value, group.beams[beam].total + value)
        group.candidates.append(candidate)
        child = _child(group, candidate)
        if child.finish != "stop":
            pool.append(child)
        elif child.complete:
            group.ended.append(child)
    kept = in_banks(
        [child.progress for child in pool],
        [child.candidate.total for child in pool],
        [child.row.limit - len(child.row.tokens) for child in pool],
        group.size,
    )
    group.kept = [pool[i] for i in kept]


def _tell_logprobs(searches: Sequence[_Search], scores: Scores) -> None:
    """Give the children of requests that want them their tokens' log-probabilities under the model."""
    wanted = [
        (child, search.row.params.logprobs)
        for search in searches
        if search.row.params.logprobs is not None
        for group in search.groups
        for child in (*group.kept, *group.ended)
    ]
    if not wanted:
        return
    told = logprobs_at(
        scores.logits,
        [scores.runs[child.parent][0].at(0) for child, _ in wanted],
        [child.candidate.token for child, _ in wanted],
        [count for _, count in wanted],
    )
    for (child, _), logprobs in zip(wanted, told, strict=True):
        child.logprobs = (logprobs,)


def _verdict(searches: Sequence[_Search]) -> Verdict:
    """What becomes of each request: it goes on, ends, or fails."""
    survivors: list[Survivor] = []
    told: list[Ending] = []
    failures: list[tuple[int, str]] = []
    for search in searches:
        ended = tuple(group.hypotheses for group in search.groups)
        if not all(hypotheses.done for hypotheses in ended):
            survivors += [s for group in search.groups for s in _survivors(group, ended)]
        elif any(hypotheses.found for hypotheses in ended):
            told += endings(search.parent, ended, search.row.params.streams)
        else:
            failures.append((search.parent, search.impossible))
    beams = [
        (search.parent, tuple(c for group in search.groups for c in _explained(group)))
        for search in searches
        if search.row.explain
    ]
    return Verdict(survivors, told, failures, beams)


def _settle(group: _Group) -> None:
    """Enter what has ended, and see whether the group is over: decided, at the limit, or without a beam."""
    strategy = group.strategy
    row = group.rows[0]
    hypotheses = group.hypotheses
    for child in group.ended:
        hypotheses = hypotheses.added(_hypothesis(group, child))
    best = max((c.total for c in group.candidates), default=-torch.inf)
    longest = row.limit - row.prompt_length
    if hypotheses.decided(strategy, best, row.generated + 1, longest):
        group.kept = []
    elif group.kept and group.kept[0].finish is not None:
        for child in _last(group.kept, hypotheses):
            hypotheses = hypotheses.added(_hypothesis(group, child))
            group.ended.append(child)
        group.kept = []
    group.hypotheses = hypotheses if group.kept else replace(hypotheses, done=True)


def _last(children: Sequence[_Child], hypotheses: Hypotheses) -> Sequence[_Child]:
    """Which of the beams that are cut off at the limit may be returned: those that hold all forced phrases.
    Only where there is no such text the others are, and told to be incomplete."""
    complete = [child for child in children if child.complete]
    return complete if complete or hypotheses.found else children


def _hypothesis(group: _Group, child: _Child) -> Hypothesis:
    row = child.row
    assert child.finish is not None
    return Hypothesis(
        tokens=tuple(row.tokens[row.prompt_length :]),
        finish=child.finish,
        score=normalised(child.candidate.total, row.generated, group.strategy.length_penalty),
        logprobs=group.beams[child.candidate.beam].logprobs + child.logprobs,
        error=None if child.complete else _UNMET,
    )


def _survivors(group: _Group, ended: tuple[Hypotheses, ...]) -> Iterator[Survivor]:
    for place, child in enumerate(group.kept, group.first):
        before = group.beams[child.candidate.beam]
        beam = Beam(
            place,
            child.candidate.total,
            child.progress,
            ended,
            before.logprobs + child.logprobs,
        )
        yield Survivor(child.parent, child.row.silent(beam))


def _explained(group: _Group) -> Iterator[BeamCandidate]:
    """What became of each candidate of the group."""
    places = {(c.candidate.beam, c.candidate.token): p for p, c in enumerate(group.kept, group.first)}
    ended = {(c.candidate.beam, c.candidate.token) for c in group.ended}
    for candidate in group.candidates:
        key = (candidate.beam, candidate.token)
        # Before the first step there is one beam, whatever the group.
        parent = 0 if group.rows[candidate.beam].state is None else group.beams[candidate.beam].place
        place = places.get(key)
        yield BeamCandidate(
            parent=parent,
            token=candidate.token,
            logprob=candidate.logprob,
            score=candidate.total,
            fate="kept" if place is not None else "finished" if key in ended else "pruned",
            beam=place,
        )
