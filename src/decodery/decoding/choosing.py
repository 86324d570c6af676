"""Choosing a token from processed logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.draw import draw_key, stream_seed
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary import copied, draw, largest


def choose(processed: Tensor, rows: Sequence[Row], salts: Sequence[int] | None = None) -> list[int]:
    """The next token of each row, which stands for one stream: the likeliest for greedy rows, else a seeded
    draw; -1 where no token is possible.

    `processed` is float32 `[rows, vocab]`. A draw with a salt is independent of the row's own.
    """
    greedy = [i for i, row in enumerate(rows) if row.params.greedy]
    if len(greedy) == len(rows):
        return largest(processed)
    keys = [draw_key_of(row, salt) for row, salt in zip(rows, salts or [0] * len(rows), strict=True)]
    if not greedy:
        return draw(processed, keys)
    drawn = [i for i, row in enumerate(rows) if not row.params.greedy]
    likeliest = largest(copied(processed, greedy))
    others = draw(copied(processed, drawn), [keys[i] for i in drawn])
    chosen = dict(zip((*greedy, *drawn), (*likeliest, *others), strict=True))
    return [chosen[i] for i in range(len(rows))]


def draw_key_of(row: Row, salt: int = 0) -> tuple[int, int]:
    """The key of the noise for the row's next token; each salt of 64 bits gives noise of its own."""
    return draw_key(stream_seed(row.seed, row.streams[0]) ^ salt, len(row.tokens))
