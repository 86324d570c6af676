"""Tokens that a row's grammar forces, because it allows one continuation only."""

from __future__ import annotations

from decodery.decoding.rows import Row


def forced_by_grammar(row: Row) -> tuple[int, ...]:
    """Returns the tokens that the row's grammar forces next; none without a grammar."""
    return () if row.grammar is None else row.grammar.forced
