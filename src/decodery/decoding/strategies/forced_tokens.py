"""Tokens that a row's grammar forces, because it allows one continuation only."""

from __future__ import annotations

from typing import NamedTuple

from decodery.decoding.chosen import FinishReason
from decodery.decoding.rows import Row, Run
from decodery.decoding.stopping import finish_of


class AfterForced(NamedTuple):
    """Holds a row to which the tokens that its grammar forced have been appended.

    `kept` of these had been run as drafts. `finish` is set if the last of them ended the row. If the row is
    `open`, the run has also scored the token after them, which is still to be chosen.
    """

    row: Row
    kept: int
    finish: FinishReason | None
    open: bool = False


def apply_forced_tokens(row: Row, run: Run) -> AfterForced:
    """Returns the row after the tokens that its grammar forces: the run's drafts and at most one more.

    The drafts must be forced tokens. Stops early where a token ends the row.
    """
    kept = 0
    while forced := forced_by_grammar(row):
        row = row.after(forced[0])
        finish = finish_of(row)
        if kept == len(run.tokens):
            return AfterForced(row, kept, finish)
        kept += 1
        if finish is not None:
            return AfterForced(row, kept, finish)
    return AfterForced(row, kept, None, open=True)


def forced_by_grammar(row: Row) -> tuple[int, ...]:
    """Returns the tokens that the row's grammar forces next; none without a grammar."""
    return () if row.grammar is None else row.grammar.forced
