"""Beam search: keeps the likeliest sequences at each step, and returns the best that ended.

The basic search follows Sutskever et al. 2014 (section 3.2) with the length normalisation of Wu et al. 2016.
`beam_rules` says when texts end and searches stop. `diverse_beams` has the penalty between groups of beams,
`constrained_beams` the phrases that a text must contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import plans_of, process, rules_out, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.rows import Ending, Needs, Proposal, Row, Scores, Survivor, Verdict
from decodery.decoding.strategies.beams.beam_candidates import Candidate, drawn, likeliest, likeliest_after
from decodery.decoding.strategies.beams.beam_groups import UNMET, Beam, Group
from decodery.decoding.strategies.beams.beam_rules import rules_of
from decodery.decoding.strategies.beams.constrained_beams import initial_progress, select_from_banks
from decodery.decoding.strategies.beams.diverse_beams import penalise_taken, tokens_of_stopped
from decodery.decoding.strategies.beams.hypotheses import Hypotheses, endings
from decodery.decoding.trace import BeamCandidate
from decodery.kernels.vocabulary.dispatch import log_softmax

# If so many candidates do not fill the beam, as under a rule that ends every text, it stays short.
_MOST_CANDIDATES = 1000


@dataclass(slots=True)
class _Search:
    """Holds one request during a step.

    `impossible` is the reason to report if no beam is left and no sequence has ended.
    """

    row: Row
    parent: int
    groups: list[Group]
    impossible: str = "no beam is left"


class BeamMethod:
    """Extends all beams of a request together, and returns its completions once the search is decided.

    Until then its rows stand for no stream.
    """

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Returns no drafts: only the last known token is run."""
        return Proposal([((),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns the next beams of each request, or its completions once its search is decided."""
        searches = list(_searches(rows))
        for index in range(max(len(s.groups) for s in searches)):
            _choose_beams(searches, index, scores)
        _add_logprobs(searches, scores)
        for search in searches:
            for group in search.groups:
                if group.rows:
                    rules_of(group.strategy).close(group)
        return _verdict(searches)


def _searches(rows: Sequence[Row]) -> Iterator[_Search]:
    """Yields a search for each request, with its rows in their groups."""
    for _, members in groupby(enumerate(rows), key=lambda member: member[1].request):
        numbered = list(members)
        parent, row = numbered[0]
        strategy = row.params.strategy
        assert isinstance(strategy, BeamSearch)
        size = strategy.num_beams // strategy.num_beam_groups
        groups = [Group(strategy, i * size, size, h) for i, h in enumerate(_beam(row, strategy, 0).ended)]
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
            search.impossible = UNMET
        yield search


def _beam(row: Row, strategy: BeamSearch, place: int) -> Beam:
    """Returns the row's state; before its first step, the initial one at `place`."""
    if row.state is None:
        count = strategy.num_beam_groups
        ended = (Hypotheses(strategy.num_beams // count),) * count
        return Beam(place, 0.0, initial_progress(strategy), ended)
    assert isinstance(row.state, Beam)
    return row.state


def _choose_beams(searches: Sequence[_Search], index: int, scores: Scores) -> None:
    """Chooses the next beams of each request's group at this index, where that group has beams."""
    active = [s for s in searches if index < len(s.groups) and s.groups[index].rows]
    if not active:
        return
    groups = [s.groups[index] for s in active]
    rows = [row for group in groups for row in group.rows]
    positions = [scores.runs[i][0].at(0) for group in groups for i in group.parents]
    raw = guided(scores, positions, rows)
    parts = _split(raw, groups)
    if not any(_needs_all_logprobs(group, index) for group in groups):
        for group, logits in zip(groups, parts, strict=True):
            _fill(group, partial(likeliest_after, logits, group.totals))
    else:
        _choose_processed(active, index, raw, rows)
    for search, group, logits in zip(active, groups, parts, strict=True):
        if not group.candidates:
            search.impossible = why_impossible(logits, group.rows[0])


def _needs_all_logprobs(group: Group, index: int) -> bool:
    """True if the group's candidates are not simply the tokens with the largest log-probabilities."""
    strategy = group.strategy
    penalised = index > 0 and strategy.diversity_penalty != 0
    if penalised or strategy.sample or strategy.force_words or group.rows[0].params.guided:
        return True
    return any(plans_of(group.rows))


def _split(logits: Tensor, groups: Sequence[Group]) -> Sequence[Tensor]:
    """Returns the logits of each group's rows."""
    return torch.split(logits, [len(group.rows) for group in groups]) if len(groups) > 1 else (logits,)


def _choose_processed(searches: Sequence[_Search], index: int, raw: Tensor, rows: Sequence[Row]) -> None:
    """Chooses the next beams of each request's group at this index by processed log-probabilities.

    `raw` `[rows, vocab]` are the logits of `rows`, which are the rows of these groups.
    """
    groups = [s.groups[index] for s in searches]
    logprobs = _logprobs(raw, rows)
    plain = _split(logprobs, groups)
    for search, group, part in zip(searches, groups, plain, strict=True):
        taken = [token for earlier in search.groups[:index] for token in _taken(earlier, search.row.end_ids)]
        penalise_taken(part, taken, group.strategy.diversity_penalty)
    processed = _split(process(logprobs, rows), groups)
    for group, part, own in zip(groups, processed, plain, strict=True):
        _fill(group, partial(_candidates, group, part))
        if group.strategy.force_words and group.candidates:
            _share_among_banks(group, part, own)


def _logprobs(raw: Tensor, rows: Sequence[Row]) -> Tensor:
    """Returns the log-probabilities by which beams are ranked.

    For guided rows these are the result of guidance, which is not normalised again: so transformers ranks.
    """
    logprobs = log_softmax(raw)
    guided_rows = [i for i, row in enumerate(rows) if row.params.guided]
    if guided_rows:
        logprobs[guided_rows] = raw[guided_rows]
    return logprobs


def _taken(group: Group, end_ids: frozenset[int]) -> list[int]:
    """Returns the tokens that a group takes at this step, after its beams were chosen."""
    if group.hypotheses.done:
        return tokens_of_stopped(group.hypotheses, end_ids)
    return [child.candidate.token for child in group.kept]


def _fill(group: Group, candidates: Callable[[int], list[Candidate]]) -> None:
    """Chooses the group's next beams among the best candidates; `candidates(n)` returns the n best."""
    # Enough for a full beam if only end tokens end sequences. Otherwise more candidates are needed.
    count = max(2, 1 + len(group.rows[0].end_ids)) * group.size
    rules = rules_of(group.strategy)
    while not rules.sort_out(group, candidates(count)):
        if len(group.candidates) < count or count >= _MOST_CANDIDATES:
            break
        count *= 2


def _candidates(group: Group, logprobs: Tensor, count: int) -> list[Candidate]:
    """Returns the `count` best candidates of the group, or a draw of as many if the strategy samples."""
    if not group.strategy.sample:
        return likeliest(logprobs, group.totals, count)
    streams = [beam.place for beam in group.beams]
    return rules_of(group.strategy).ranked(drawn(logprobs, group.totals, group.rows, streams, count))


def _share_among_banks(group: Group, logprobs: Tensor, plain: Tensor) -> None:
    """Adds candidates that continue the forced phrases, and keeps the best of each bank.

    `logprobs` and `plain`, `[beams, vocab]`, are log-probabilities after and before the processors. A token
    that truncation alone cut away may continue a phrase, with its log-probability before the processors.
    """
    known = {(child.candidate.beam, child.candidate.token) for child in group.kept}
    continuing = [
        (i, token)
        for i, beam in enumerate(group.beams)
        for token in beam.progress.next_tokens()
        if (i, token) not in known
    ]
    if not continuing:
        return
    beams, tokens = zip(*continuing, strict=True)
    pool = list(group.kept)
    for beam, token, value in zip(beams, tokens, logprobs[beams, tokens].tolist(), strict=True):
        if value == -torch.inf:
            if rules_out(plain[beam], group.rows[beam], token):
                continue
            value = float(plain[beam, token])
        candidate = Candidate(beam, token, value, group.beams[beam].total + value)
        group.candidates.append(candidate)
        child = group.child(candidate)
        if child.finish != "stop":
            pool.append(child)
        elif child.complete:
            group.ended.append(child)
    kept = select_from_banks(
        [child.progress for child in pool],
        [child.candidate.total for child in pool],
        [child.row.limit - len(child.row.tokens) for child in pool],
        group.size,
    )
    group.kept = [pool[i] for i in kept]


def _add_logprobs(searches: Sequence[_Search], scores: Scores) -> None:
    """Sets the log-probability of each child's token under the model, where its request asks for it."""
    wanted = [
        (child, search.row.params.logprobs)
        for search in searches
        if search.row.params.logprobs is not None
        for group in search.groups
        for child in (*group.kept, *group.ended)
    ]
    if not wanted:
        return
    found = logprobs_at(
        scores.logits,
        [scores.runs[child.parent][0].at(0) for child, _ in wanted],
        [child.candidate.token for child, _ in wanted],
        [count for _, count in wanted],
    )
    for (child, _), logprobs in zip(wanted, found, strict=True):
        child.logprobs = (logprobs,)


def _verdict(searches: Sequence[_Search]) -> Verdict:
    """Returns the verdict: each request continues, ends or fails."""
    survivors: list[Survivor] = []
    completions: list[Ending] = []
    failures: list[tuple[int, str]] = []
    for search in searches:
        ended = tuple(group.hypotheses for group in search.groups)
        if not all(hypotheses.done for hypotheses in ended):
            survivors += [s for group in search.groups for s in _survivors(group, ended)]
        elif any(hypotheses.found for hypotheses in ended):
            completions += endings(search.parent, ended, search.row.params.streams)
        else:
            failures.append((search.parent, search.impossible))
    beams = [
        (search.parent, tuple(c for group in search.groups for c in _explained(group)))
        for search in searches
        if search.row.explain
    ]
    return Verdict(survivors, completions, failures, beams)


def _survivors(group: Group, ended: tuple[Hypotheses, ...]) -> Iterator[Survivor]:
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


def _explained(group: Group) -> Iterator[BeamCandidate]:
    """Yields, for a trace, what became of each candidate of the group."""
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
