"""Judges rows and all of their drafts with one call of the fused kernel.

At every position the kernel chooses as if the drafts before it were right. The row then takes these choices
for as long as they are its drafts. So a step with drafts costs what a step of as many rows costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from decodery.decoding.logprobs import logprobs_at
from decodery.decoding.processors.pipeline import may_ban, plans_of, why_impossible
from decodery.decoding.request.strategy_params import Sampling
from decodery.decoding.rows import Row, Run, Scores, Verdict
from decodery.decoding.strategies.drafts.acceptance import rejecting
from decodery.decoding.strategies.drafts.verification import DraftVerification, LogitsAt, survivor_of
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.decoding.strategies.fused_sampling import (
    can_fuse,
    choose_allowed,
    choose_from_all,
    considered_choices,
    no_borders,
    unmasked_choice_is_valid,
)


@dataclass(slots=True)
class _OnePass(DraftVerification):
    """Holds the verification of a row whose choices are known at every position of its run.

    `first` is the index, among the choices of all rows, of the one after the drafts of the grammar.
    """

    first: int = 0
    chosen: list[int] = field(default_factory=list)

    @property
    def place(self) -> int:
        """Returns the index of the next token's choice."""
        return self.first + self.steps - self.forced


def judge_in_one_pass(rows: Sequence[Row], scores: Scores, logits_at: LogitsAt) -> tuple[Verdict, list[int]]:
    """Returns one survivor for each row whose tokens one call of the fused kernel can choose, and the places
    of the other rows.

    `logits_at` gives the logits by which the rows choose. The tokens are those of `verify_drafts`.
    """
    verifications: list[_OnePass] = []
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
        verifications.append(_OnePass(i, row, run, forced, first=len(ahead)))
        positions += map(run.at, tried)
        ahead += own
        plans += own_plans
    raw = logits_at(scores, positions, ahead) if ahead else scores.logits
    borders = no_borders(len(ahead))
    choices = choose_from_all(raw, ahead, plans, borders) if ahead else []
    for v in verifications:
        _take_choices(v, choices, raw, borders)
    _add_logprobs(verifications, scores)
    _add_considered(verifications, raw, ahead, plans, borders)
    return Verdict([survivor_of(rows[v.parent], v) for v in verifications]), others


def _needs_choices_only(row: Row, run: Run) -> bool:
    """True if the row is one stream, whose tokens follow from the choices at the positions of its run.

    No ban can then rule out what its grammar forces. Tokens that a grammar forces have no choice to explain.
    The logits of other strategies than sampling depend on which tokens the grammar allows.
    """
    if len(row.streams) > 1 or row.params.mirostat_mode:
        return False
    if row.grammar is not None and not isinstance(row.params.strategy, Sampling):
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


def _take_choices(v: _OnePass, choices: Sequence[int], raw: Tensor, borders: array[float]) -> None:
    """Appends tokens for as long as they are the drafts, and then the one that is not.

    If no token is possible after some drafts, the row ends there with an error, as it does without drafts.
    """
    while not v.done:
        token = _next(v.row, choices, v.place, raw, borders)
        if token < 0:
            v.fail(why_impossible(raw[v.place], v.row))
            return
        v.chosen.append(token)
        v.take(token)


def _next(row: Row, choices: Sequence[int], place: int, raw: Tensor, borders: array[float]) -> int:
    """Returns the row's next token, -1 if none is possible; updates the borders of a choice made again."""
    forced = forced_by_grammar(row)
    if forced:
        return forced[0]
    token = choices[place]
    if row.grammar is None or row.grammar.unrestricted or unmasked_choice_is_valid(row, token):
        return token
    return choose_allowed(raw, [place], [row], plans_of([row]), borders)[0]


def _add_logprobs(verifications: Sequence[_OnePass], scores: Scores) -> None:
    """Adds the log-probabilities of the chosen tokens where requests ask for them."""
    asking = [v for v in verifications if v.row.params.logprobs is not None and v.chosen]
    if not asking:
        return
    each = [
        (v, v.run.at(j), token, v.row.params.logprobs or 0)
        for v in asking
        for j, token in enumerate(v.chosen)
    ]
    asked_by, positions, tokens, counts = zip(*each, strict=True)
    for v, found in zip(asked_by, logprobs_at(scores.logits, positions, tokens, counts), strict=True):
        v.logprobs.append(found)


def _add_considered(
    verifications: Sequence[_OnePass],
    raw: Tensor,
    ahead: Sequence[Row],
    plans: Sequence[list[str]],
    borders: array[float],
) -> None:
    """Adds what the choices considered where a row explains; `ahead` are the rows that chose."""
    each = [
        (v, v.first + j, token) for v in verifications if v.row.explain for j, token in enumerate(v.chosen)
    ]
    if not each:
        return
    chosen = {place: token for _, place, token in each}
    records = considered_choices(raw, ahead, plans, chosen, borders)
    for (v, _, _), record in zip(each, records, strict=True):
        v.considered.append(record)
