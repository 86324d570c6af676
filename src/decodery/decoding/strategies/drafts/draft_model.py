"""Draws the drafts of a draft model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.draw import choose
from decodery.decoding.processors.pipeline import process
from decodery.decoding.rows import Row
from decodery.decoding.strategies.drafts.acceptance import rejecting
from decodery.decoding.strategies.forced_tokens import forced_by_grammar

# A salt: drafts that are accepted by rejection have noise of their own, independent of that of plain draws.
_DRAFT = 0xC13FA9A902A6328F


def draw_drafts(rows: Sequence[Row], logits: Tensor) -> tuple[Sequence[int], Tensor]:
    """Returns each row's next draft by its draft model's `logits` `[rows, vocab]`, and the processed logits.

    A token that the row's grammar forces is its draft.
    """
    processed = process(logits, rows)
    chosen = draft_tokens(processed, rows)
    drafts = [next(iter(forced_by_grammar(row)), token) for row, token in zip(rows, chosen, strict=True)]
    return drafts, processed


def draft_tokens(processed: Tensor, rows: Sequence[Row]) -> list[int]:
    """Returns each row's draft by its draft model's processed logits `[rows, vocab]`.

    Drafts that must match the row's own choice are drawn with the noise of that choice, so that similar
    distributions mostly give the same token.
    """
    return choose(processed, rows, [_DRAFT if rejecting(row) else 0 for row in rows])
