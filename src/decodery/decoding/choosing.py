"""Choosing a token from processed logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.draw import draw, draw_key, stream_seed
from decodery.decoding.rows import Row


def choose(processed: Tensor, rows: Sequence[Row]) -> list[int]:
    """The next token of each row, which stands for one stream: the likeliest for greedy rows, else a seeded
    draw.

    `processed` is float32 `[rows, vocab]`.
    """
    greedy = [i for i, row in enumerate(rows) if row.params.greedy]
    if len(greedy) == len(rows):
        likeliest: list[int] = processed.argmax(-1).tolist()
        return likeliest
    keys = [draw_key(stream_seed(row.seed, row.streams[0]), len(row.tokens)) for row in rows]
    if not greedy:
        drawn: list[int] = draw(processed, keys).tolist()
        return drawn
    tokens = [0] * len(rows)
    some = [i for i, row in enumerate(rows) if not row.params.greedy]
    for i, token in zip(greedy, processed[greedy].argmax(-1).tolist(), strict=True):
        tokens[i] = token
    for i, token in zip(some, draw(processed[some], [keys[i] for i in some]).tolist(), strict=True):
        tokens[i] = token
    return tokens


def why_impossible(raw: Tensor) -> str:
    """What to say of a row, with these unprocessed logits `[vocab]`, for which no token is possible."""
    if bool(raw.isnan().any()):
        return "the model's scores are not numbers (NaN): its weights are damaged or overflow in this dtype"
    return "no token is possible: the processors ban every one"
