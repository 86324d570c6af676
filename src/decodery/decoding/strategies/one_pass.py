"""Judges rows and all of their drafts with one call of the fused kernel.

At every position the kernel chooses as if the drafts before it were right. The row then takes these choices
for as long as they are its drafts. So a step with drafts costs what a step of as many rows costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.pipeline import may_ban, plans_of, why_impossible
from decodery.decoding.rows import Row, Run, Scores, Survivor, Verdict
from decodery.decoding.stopping import finish_of
from decodery.decoding.strategies.draft_acceptance import rejecting
from decodery.decoding.strategies.draft_pace import paced
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.decoding.strategies.fused_sampling import (
    can_fuse,
    choose_allowed,
    choose_from_all,
    unmasked_choice_is_valid,
)

# A method's logits `[positions, vocab]`, before processing, of the rows at these positions of the scores.
LogitsAt = Callable[[Scores, Sequence[int], Sequence[Row]], Tensor]


@dataclass(slots=True)
class _Walk:
    """Holds a row on its way along its run.

    The first `forced` drafts are the grammar's. `first` is the index, among the choices of all rows, of the
    one after these.
    """

    parent: int
    row: Row
    run: Run
    forced: int
    first: int
    steps: int = 0
    kept: int = 0
    finish: FinishReason | None = None
    failure: str | None = None
    chosen: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)


def judge_in_one_pass(rows: Sequence[Row], scores: Scores, logits_at: LogitsAt) -> Verdict | None:
    """Returns one survivor for each row, or None unless one call of the fused kernel can choose all tokens.

    `logits_at` gives the logits by which the rows choose. The tokens are those of `verify_drafts`.
    """
    runs = [run for (run,) in scores.runs]
    if not all(map(_needs_choices_only, rows, runs)):
        return None
    walks: list[_Walk] = []
    positions: list[int] = []
    ahead: list[Row] = []
    for i, (row, run) in enumerate(zip(rows, runs, strict=True)):
        forced = len(forced_by_grammar(row))
        walks.append(_Walk(i, row, run, forced, len(ahead)))
        tried = range(forced, len(run.tokens) + 1)
        positions += map(run.at, tried)
        ahead += [row if j == 0 else _ahead(row, run.tokens[:j]) for j in tried]
    plans = plans_of(ahead)
    if not can_fuse(scores.logits, ahead, plans):
        return None
    raw = logits_at(scores, positions, ahead) if ahead else scores.logits
    choices = choose_from_all(raw, ahead, plans) if ahead else []
    for walk in walks:
        _follow(walk, choices, raw)
    _add_logprobs(walks, scores)
    return Verdict(
        [_survivor(rows[walk.parent], walk) for walk in walks if walk.failure is None],
        failures=[(walk.parent, walk.failure) for walk in walks if walk.failure is not None],
    )


def _needs_choices_only(row: Row, run: Run) -> bool:
    """True if the row is one stream, whose tokens follow from the choices at the positions of its run.

    No ban can then rule out what its grammar forces.
    """
    if len(row.streams) > 1 or row.explain or row.params.mirostat_mode:
        return False
    forced = forced_by_grammar(row)
    if run.tokens[: len(forced)] != forced[: len(run.tokens)] or (forced and may_ban(row)):
        return False
    return len(run.tokens) <= len(forced) or not rejecting(row)


def _ahead(row: Row, drafts: Sequence[int]) -> Row:
    """Returns the row with drafts as its last tokens; its watch and its grammar have not seen them."""
    return row.with_tokens(row.tokens + array("q", drafts))


def _follow(walk: _Walk, choices: Sequence[int], raw: Tensor) -> None:
    """Appends tokens for as long as they are the drafts, and then the one that is not.

    If no token is possible after some drafts, the row ends its step there: it fails in the next one, as it
    does without drafts.
    """
    while walk.finish is None:
        place = walk.first + walk.steps - walk.forced
        token = _next(walk.row, choices, place, raw)
        if token < 0:
            if walk.steps == 0:
                walk.failure = why_impossible(raw[place], walk.row)
            walk.kept = max(walk.steps - 1, 0)
            return
        walk.row = walk.row.after(token)
        walk.finish = finish_of(walk.row)
        walk.chosen.append(token)
        if walk.steps == len(walk.run.tokens) or token != walk.run.tokens[walk.steps]:
            return
        walk.steps += 1
        walk.kept = walk.steps


def _next(row: Row, choices: Sequence[int], place: int, raw: Tensor) -> int:
    """Returns the row's next token, -1 if none is possible."""
    forced = forced_by_grammar(row)
    if forced:
        return forced[0]
    token = choices[place]
    if row.grammar is None or row.grammar.unrestricted or unmasked_choice_is_valid(row, token):
        return token
    return choose_allowed(raw, [place], [row], plans_of([row]))[0]


def _add_logprobs(walks: Sequence[_Walk], scores: Scores) -> None:
    """Adds the log-probabilities of the chosen tokens to the walks whose requests ask for them."""
    asking = [w for w in walks if w.row.params.logprobs is not None and w.failure is None]
    if not asking:
        return
    each = [
        (w, w.run.at(j), token, w.row.params.logprobs or 0)
        for w in asking
        for j, token in enumerate(w.chosen)
    ]
    walks_of, positions, tokens, counts = zip(*each, strict=True)
    for walk, found in zip(walks_of, logprobs_at(scores.logits, positions, tokens, counts), strict=True):
        walk.logprobs.append(found)


def _survivor(before: Row, walk: _Walk) -> Survivor:
    """Returns the survivor that a row becomes."""
    drafted = max(len(walk.run.tokens) - walk.forced, 0)
    return Survivor(
        parent=walk.parent,
        row=paced(before, walk.row, drafted, max(walk.steps - walk.forced, 0)),
        keep=walk.kept,
        finish=walk.finish,
        logprobs=tuple(walk.logprobs),
        drafts=walk.run.tokens,
    )
