"""Greedy decoding and sampling, with any number of streams and with drafts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from decodery.decoding.draw import choose
from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.mirostat import updated_mu
from decodery.decoding.processors.pipeline import may_ban, plans_of, process, rules_out, why_impossible
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.rows import (
    Extension,
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
from decodery.decoding.strategies.drafting import (
    accept_or_replace,
    draft_length,
    draft_tokens,
    lookup,
    paced,
    rejecting,
)
from decodery.decoding.strategies.fused_sampling import can_fuse, sample_fused
from decodery.decoding.trace import Considered, Recorder
from decodery.kernels.vocabulary.dispatch import copied


@dataclass(slots=True)
class DraftVerification:
    """One stream of a row on its way along the row's drafts.

    The first `forced` drafts are the grammar's, the others the speculation's. `token` is the next one, once
    it is known.
    """

    parent: int
    row: Row
    run: Run
    forced: int
    token: int | None = None
    steps: int = 0
    kept: int = 0
    finish: FinishReason | None = None
    done: bool = False
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    considered: list[Considered] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.run.at(self.steps)

    @property
    def draft(self) -> int | None:
        """The draft of the next token, if there is one."""
        return self.run.tokens[self.steps] if self.steps < len(self.run.tokens) else None

    @property
    def drafted(self) -> Tensor | None:
        """The logits `[vocab]` that the draft was drawn from, if it was drawn."""
        return None if self.run.drafted is None else self.run.drafted[self.steps - self.forced]

    def take(self, token: int) -> None:
        """Go on by a token, as far as drafts agree."""
        agrees = token == self.draft
        self.row = self.row.after(token)
        self.finish = finish_of(self.row)
        self.kept += agrees
        self.steps += 1
        self.done = self.finish is not None or not agrees


class SamplingMethod:
    """One token for each row a step, and more as far as drafts agree; a row of several streams parts into
    them."""

    def needs(self, params: GenerationParams) -> Needs:
        """Nothing besides logits."""
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """The tokens that a row's grammar forces, and behind them its speculation's drafts."""
        branches = []
        extend = []
        given = []
        for row in rows:
            # The last token that a row can know need not run.
            room = row.limit - len(row.tokens) - 1
            drafts = _forced(row)[:room]
            given.append(len(drafts) if drafts and _tells_nothing(row) and not may_ban(row) else 0)
            count = draft_length(row, room - len(drafts))
            if count and isinstance(row.params.speculate, PromptLookup):
                tokens = row.tokens + array("q", drafts)
                drafts += lookup(tokens, row.params.speculate.max_ngram, count)
            branches.append((drafts,))
            extend.append(count if isinstance(row.params.speculate, DraftModel) else 0)
        return Proposal(branches, Extension(extend, draw_drafts) if any(extend) else None, given)

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """The logits that the rows at these positions choose by, before processing."""
        return guided(scores, positions, rows)

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """One survivor for each stream of each row."""
        found = self._at_once(rows, scores)
        if found is not None:
            return found
        walks = [
            DraftVerification(
                i, row if len(row.streams) == 1 else replace(row, streams=(stream,)), run, len(_forced(row))
            )
            for i, (row, (run,)) in enumerate(zip(rows, scores.runs, strict=True))
            for stream in row.streams
        ]
        failures: list[tuple[int, str]] = []
        going = walks
        while going:
            failures += self._advance(going, scores)
            going = [w for w in going if not w.done]
        failed = {parent for parent, _ in failures}
        return Verdict(
            [_survivor(rows[w.parent], w) for w in walks if w.parent not in failed], failures=failures
        )

    def _at_once(self, rows: Sequence[Row], scores: Scores) -> Verdict | None:
        """The verdict on the most common step, which needs no walks: each row takes what its grammar forces,
        then one token straight from its logits, and nothing else is told of it. None of any other step."""
        runs = [run for (run,) in scores.runs]
        if not all(map(_asks_for_tokens_alone, rows, runs)):
            return None
        if any(run.tokens for run in runs) and not can_fuse(scores.logits, rows, plans_of(rows)):
            return None  # Before grammars are led on for nothing.
        led = list(map(apply_forced_tokens, rows, runs))
        choosing = [i for i, one in enumerate(led) if one.open]
        held = [led[i].row for i in choosing]
        plans = plans_of(held)
        if not can_fuse(scores.logits, held, plans):
            return None
        failures = []
        if held:
            raw = self.logits(scores, [runs[i].at(led[i].kept) for i in choosing], held)
            for k, (i, token) in enumerate(zip(choosing, sample_fused(raw, held, plans), strict=True)):
                if token < 0:
                    failures.append((i, why_impossible(raw[k], held[k])))
                else:
                    after = held[k].after(token)
                    led[i] = AfterForced(after, led[i].kept, finish_of(after))
        failed = {i for i, _ in failures}
        survivors = [
            Survivor(i, one.row, one.kept, finish=one.finish, drafts=run.tokens)
            for i, (one, run) in enumerate(zip(led, runs, strict=True))
            if i not in failed
        ]
        return Verdict(survivors, failures=failures)

    def _advance(self, walks: Sequence[DraftVerification], scores: Scores) -> list[tuple[int, str]]:
        """Take the next token of each walk, and say for which there is none."""
        for walk in walks:
            walk.token = self._forced_token(walk, scores)
        failures = self._choose(
            [w for w in walks if w.token is None or w.row.explain or w.row.params.mirostat_mode], scores
        )
        able = [(walk, walk.token) for walk in walks if walk.token is not None]
        _add_logprobs(scores, able)
        for walk, token in able:
            walk.take(token)
        return failures

    def _forced_token(self, walk: DraftVerification, scores: Scores) -> int | None:
        """The token that the grammar forces, unless a ban rules it out: what is left is chosen from then."""
        token = next(iter(_forced(walk.row)), None)
        if token is None or not may_ban(walk.row):
            return token
        (logits,) = self.logits(scores, [walk.position], [walk.row])
        return None if rules_out(logits, walk.row, token) else token

    def _choose(self, walks: Sequence[DraftVerification], scores: Scores) -> list[tuple[int, str]]:
        """Choose the next token of each walk where it is not forced; those for which there is none end."""
        if not walks:
            return []
        # Streams that have not parted share their row's processed logits.
        shared: dict[int, int] = {}
        for k, walk in enumerate(walks):
            shared.setdefault(logits_key(k, walk), k)
        index = {key: place for place, key in enumerate(shared)}
        rows = [walks[k].row for k in shared.values()]
        raw = self.logits(scores, [walks[k].position for k in shared.values()], rows)
        plans = plans_of(rows)
        plain = len(walks) == len(rows) and all(_plain(walk) for walk in walks)
        if plain and can_fuse(raw, rows, plans):
            return _taken(walks, sample_fused(raw, rows, plans), raw)
        recorder = Recorder(raw, rows) if any(row.explain for row in rows) else None
        # The scores' own logits are raw only where all rows choose; of some rows they are a copy.
        keep = any(_read_again(row) for row in rows)
        processed = process(raw, rows, recorder, in_place=not keep, plans=plans)
        places = [index[logits_key(k, w)] for k, w in enumerate(walks)]
        own = processed if places == list(range(len(rows))) else copied(processed, places)
        tokens = _chosen(walks, own)
        failures = []
        for k, (walk, token) in enumerate(zip(walks, tokens, strict=True)):
            # A forced token may be ruled out.
            able = token >= 0 if walk.token is None else bool(own[k, token] > -math.inf)
            if not able and walk.token is None:
                walk.done = True
                failures.append((walk.parent, why_impossible(raw[places[k]], walk.row)))
                continue
            if recorder is not None and walk.row.explain:
                considered = recorder.considered(places[k], own[k], token)
                forced = considered.forced or walk.token is not None
                walk.considered.append(replace(considered, forced=forced))
            if able and walk.row.params.mirostat_mode:
                walk.row = replace(walk.row, mu=updated_mu(walk.row, own[k], token))
            walk.token = token
        return failures


class AfterForced(NamedTuple):
    """A row after the tokens that its grammar forced, of which `kept` had been computed; if it is `open`, its
    next token is still to be chosen."""

    row: Row
    kept: int
    finish: FinishReason | None
    open: bool = False


def apply_forced_tokens(row: Row, run: Run) -> AfterForced:
    """The row after what its grammar forces, the run's drafts and one token more."""
    kept = 0
    while forced := _forced(row):
        row = row.after(forced[0])
        finish = finish_of(row)
        if kept == len(run.tokens):
            return AfterForced(row, kept, finish)
        kept += 1
        if finish is not None:
            return AfterForced(row, kept, finish)
    return AfterForced(row, kept, None, open=True)


def _asks_for_tokens_alone(row: Row, run: Run) -> bool:
    """Whether nothing is asked of the row's step but tokens, of which the drafts are certain."""
    if len(row.streams) > 1 or row.params.speculate is not None or not _tells_nothing(row):
        return False
    forced = _forced(row)
    return run.tokens == forced[: len(run.tokens)] and (not forced or not may_ban(row))


def _tells_nothing(row: Row) -> bool:
    """Whether nobody asks how likely the row's tokens were."""
    return not row.explain and row.params.logprobs is None and not row.params.mirostat_mode


def _plain(walk: DraftVerification) -> bool:
    """Whether nothing is asked of the walk's choice but the token."""
    row = walk.row
    return (
        walk.token is None
        and not row.explain
        and not row.params.mirostat_mode
        and (walk.draft is None or not rejecting(row))
    )


def _taken(walks: Sequence[DraftVerification], tokens: Sequence[int], raw: Tensor) -> list[tuple[int, str]]:
    """Give plain walks their tokens, and say for which there is none."""
    failures = []
    for k, (walk, token) in enumerate(zip(walks, tokens, strict=True)):
        if token >= 0:
            walk.token = token
        else:
            walk.done = True
            failures.append((walk.parent, why_impossible(raw[k], walk.row)))
    return failures


def _read_again(row: Row) -> bool:
    """Whether the row's raw logits may be needed after it has chosen: to tell of them, or to judge once more
    without a request whose own function failed."""
    params = row.params
    told = row.explain > 0 or params.logprobs is not None
    return told or bool(params.logits_processors) or params.stop_when is not None


def logits_key(k: int, walk: DraftVerification) -> int:
    """What names the processed logits of the k-th walk: its row's, unless they are its own."""
    alone = walk.steps > 0 or walk.row.params.xtc_probability > 0
    return -1 - k if alone else walk.parent


def draw_drafts(rows: Sequence[Row], logits: Tensor) -> tuple[Sequence[int], Tensor]:
    """What each row's grammar forces, or what it would choose by an assistant's logits."""
    processed = process(logits, rows)
    chosen = draft_tokens(processed, rows)
    return [next(iter(_forced(row)), token) for row, token in zip(rows, chosen, strict=True)], processed


def _forced(row: Row) -> tuple[int, ...]:
    return () if row.grammar is None else row.grammar.forced


def _chosen(walks: Sequence[DraftVerification], processed: Tensor) -> list[int]:
    """The next token of each walk by its processed logits, whether it is possible or not."""
    chosen = {}
    for k, walk in enumerate(walks):
        if walk.token is not None:
            chosen[k] = walk.token
        elif walk.draft is not None and rejecting(walk.row):
            chosen[k] = accept_or_replace(walk.row, processed[k], walk.draft, walk.drafted)
    if not chosen:
        return choose(processed, [walk.row for walk in walks])
    others = [k for k in range(len(walks)) if k not in chosen]
    chosen |= zip(others, choose(copied(processed, others), [walks[k].row for k in others]), strict=True)
    return [chosen[k] for k in range(len(walks))]


def _add_logprobs(scores: Scores, walks: Sequence[tuple[DraftVerification, int]]) -> None:
    """Add the log-probability of each walk's next token where its request wants it."""
    wanted = [
        (walk, walk.position, token, count)
        for walk, token in walks
        if (count := walk.row.params.logprobs) is not None
    ]
    if not wanted:
        return
    asking, positions, tokens, counts = zip(*wanted, strict=True)
    told_each = logprobs_at(scores.logits, positions, tokens, counts)
    for walk, told in zip(asking, told_each, strict=True):
        walk.logprobs.append(told)


def _survivor(before: Row, walk: DraftVerification) -> Survivor:
    drafted = max(len(walk.run.tokens) - walk.forced, 0)
    return Survivor(
        parent=walk.parent,
        row=paced(before, walk.row, drafted, max(walk.kept - walk.forced, 0)),
        keep=walk.kept,
        finish=walk.finish,
        logprobs=tuple(walk.logprobs),
        considered=tuple(walk.considered),
        drafts=walk.run.tokens,
    )
