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
from decodery.decoding.strategies.drafts.acceptance import rejecting
from decodery.decoding.strategies.drafts.pace import paced
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.decoding.strategies.fused_sampling import (
    can_fuse,
    choose_allowed,
    choose_from_all,
    considered_choices,
    no_borders,
    unmasked_choice_is_valid,
)
from decodery.decoding.trace import Considered

# A method's logits `[positions, vocab]`, before processing, of the rows at these positions of the scores.
LogitsAt = Callable[[Scores, Sequence[int], Sequence[Row]], Tensor]


@dataclass(slots=True)
class _Judged:
    """Holds a row whose run is being judged.

    The first `forced` drafts are the grammar's. `first` is the index, among the choices of all rows, of the
    one after these. `error` says why no token is possible after those chosen.
    """

    parent: int
    row: Row
    run: Run
    forced: int
    first: int
    steps: int = 0
    kept: int = 0
    finish: FinishReason | None = None
    error: str | None = None
    chosen: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    considered: list[Considered] = field(default_factory=list)


def judge_in_one_pass(rows: Sequence[Row], scores: Scores, logits_at: LogitsAt) -> tuple[Verdict, list[int]]:
    """Returns one survivor for each row whose tokens one call of the fused kernel can choose, and the places
    of the other rows.

    `logits_at` gives the logits by which the rows choose. The tokens are those of `verify_drafts`.
    """
    all_judged: list[_Judged] = []
    others: list[int] = []
    positions: list[int] = []
    ahead: list[Row] = []
    plans: list[list[str]] = []
    for i, (row, (run,)) in enumerate(zip(rows, scores.runs, strict=True)):
        if not _needs_choices_only(row, run):
            others.append(i)
            continue
        forced = len(forced_by_grammar(row))
        tried = range(forced, len(run.tokens) + 1)
        own = [row if j == 0 else _ahead(row, run.tokens[:j]) for j in tried]
        own_plans = plans_of(own)
        if not can_fuse(scores.logits, own, own_plans):
            others.append(i)
            continue
        all_judged.append(_Judged(i, row, run, forced, len(ahead)))
        positions += map(run.at, tried)
        ahead += own
        plans += own_plans
    raw = logits_at(scores, positions, ahead) if ahead else scores.logits
    borders = no_borders(len(ahead))
    choices = choose_from_all(raw, ahead, plans, borders) if ahead else []
    for judged in all_judged:
        _append_choices(judged, choices, raw, borders)
    _add_logprobs(all_judged, scores)
    _add_considered(all_judged, raw, ahead, plans, borders)
    return Verdict([_survivor(rows[judged.parent], judged) for judged in all_judged]), others


def _needs_choices_only(row: Row, run: Run) -> bool:
    """True if the row is one stream, whose tokens follow from the choices at the positions of its run.

    No ban can then rule out what its grammar forces. Tokens that a grammar forces have no choice to explain.
    """
    if len(row.streams) > 1 or row.params.mirostat_mode:
        return False
    forced = forced_by_grammar(row)
    if row.explain and row.grammar is not None and (forced or run.tokens):
        return False
    if run.tokens[: len(forced)] != forced[: len(run.tokens)] or (forced and may_ban(row)):
        return False
    return len(run.tokens) <= len(forced) or not rejecting(row)


def _ahead(row: Row, drafts: Sequence[int]) -> Row:
    """Returns the row with drafts as its last tokens; its watch and its grammar have not seen them."""
    return row.with_tokens(row.tokens + array("q", drafts))


def _append_choices(judged: _Judged, choices: Sequence[int], raw: Tensor, borders: array[float]) -> None:
    """Appends tokens for as long as they are the drafts, and then the one that is not.

    If no token is possible after some drafts, the row ends there with an error, as it does without drafts.
    """
    while judged.finish is None:
        place = judged.first + judged.steps - judged.forced
        token = _next(judged.row, choices, place, raw, borders)
        if token < 0:
            judged.finish, judged.error = "error", why_impossible(raw[place], judged.row)
            return
        judged.row = judged.row.after(token)
        judged.finish = finish_of(judged.row)
        judged.chosen.append(token)
        if judged.steps == len(judged.run.tokens) or token != judged.run.tokens[judged.steps]:
            return
        judged.steps += 1
        judged.kept = judged.steps


def _next(row: Row, choices: Sequence[int], place: int, raw: Tensor, borders: array[float]) -> int:
    """Returns the row's next token, -1 if none is possible; updates the borders of a choice made again."""
    forced = forced_by_grammar(row)
    if forced:
        return forced[0]
    token = choices[place]
    if row.grammar is None or row.grammar.unrestricted or unmasked_choice_is_valid(row, token):
        return token
    return choose_allowed(raw, [place], [row], plans_of([row]), borders)[0]


def _add_logprobs(all_judged: Sequence[_Judged], scores: Scores) -> None:
    """Adds the log-probabilities of the chosen tokens where requests ask for them."""
    asking = [j for j in all_judged if j.row.params.logprobs is not None and j.chosen]
    if not asking:
        return
    each = [
        (w, w.run.at(j), token, w.row.params.logprobs or 0)
        for w in asking
        for j, token in enumerate(w.chosen)
    ]
    asked_by, positions, tokens, counts = zip(*each, strict=True)
    for judged, found in zip(asked_by, logprobs_at(scores.logits, positions, tokens, counts), strict=True):
        judged.logprobs.append(found)


def _add_considered(
    all_judged: Sequence[_Judged],
    raw: Tensor,
    ahead: Sequence[Row],
    plans: Sequence[list[str]],
    borders: array[float],
) -> None:
    """Adds what the choices considered where a row explains; `ahead` are the rows that chose."""
    each = {
        judged.first + j: (judged, token)
        for judged in all_judged
        if judged.row.explain
        for j, token in enumerate(judged.chosen)
    }
    chosen = {place: token for place, (_, token) in each.items()}
    records = considered_choices(raw, ahead, plans, chosen, borders)
    for (judged, _), record in zip(each.values(), records, strict=True):
        judged.considered.append(record)


def _survivor(before: Row, judged: _Judged) -> Survivor:
    """Returns the survivor that a row becomes."""
    row = judged.row
    if judged.finish is None:
        drafted = max(len(judged.run.tokens) - judged.forced, 0)
        row = paced(before, row, drafted, max(judged.steps - judged.forced, 0))
    return Survivor(
        parent=judged.parent,
        row=row,
        keep=judged.kept,
        finish=judged.finish,
        error=judged.error,
        logprobs=tuple(judged.logprobs),
        considered=tuple(judged.considered),
        drafts=judged.run.tokens,
    )
