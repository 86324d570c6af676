"""Decides when a sequence ends."""

from __future__ import annotations

from decodery.decoding.chosen import FinishReason
from decodery.decoding.rows import Row
from decodery.errors import CallbackError


def finish_of(row: Row) -> FinishReason | None:
    """Returns the reason why a row ends after its last token, which was generated, or None.

    End tokens, a stop by the watch and the caller's `stop_when` count from `min_tokens` on. A complete
    grammar, the limit of tokens and the limit of time always count. Raises `CallbackError` when `stop_when`
    fails.
    """
    params = row.params
    if row.grammar is not None and row.grammar.complete:
        return "stop"
    if row.generated >= params.min_tokens and _stopped(row):
        return "stop"
    if len(row.tokens) >= row.limit:
        return "length"
    return "time" if row.expired else None


def _stopped(row: Row) -> bool:
    if row.tokens[-1] in row.end_ids:
        return True
    if row.watch is not None and row.watch.stopped is not None:
        return True
    stop_when = row.params.stop_when
    if stop_when is None:
        return False
    try:
        return bool(stop_when(row.tokens[row.prompt_length :].tolist()))
    except Exception as error:
        raise CallbackError(f"stop_when failed: {error!r}", row.request) from error
