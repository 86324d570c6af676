"""When a sequence ends."""

from __future__ import annotations

from decodery.decoding.rows import FinishReason, Row, Watch


def after_token(
    row: Row, known: int, token: int, watch: Watch | None
) -> tuple[FinishReason | None, Watch | None]:
    """What `token`, following `known` tokens of `row`, brings about: an end or None, and the next watch.

    End tokens and what the watch stops at count from `min_tokens` on; the end of the budget always does.
    """
    enough = known + 1 - row.prompt_length >= row.params.min_tokens
    ended = token in row.end_ids
    if watch is not None and not ended:
        watch = watch.after(token)
        ended = watch.stopped is not None
    if ended and enough:
        return "stop", watch
    return ("length" if known + 1 >= row.limit else None), watch
