"""Draws tokens: a draw is a pure function of the processed logits and of (seed, position, token)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import copied, draw, largest

_MASK = 2**64 - 1


def _splitmix64(x: int) -> int:
    """Applies the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stream_seed(seed: int, stream: int) -> int:
    """Returns the seed of a request's stream; the first stream has the request's own."""
    return seed & _MASK if stream == 0 else _splitmix64((seed & _MASK) ^ _splitmix64(stream))


def draw_key(seed: int, position: int) -> tuple[int, int]:
    """Returns the two int32 words that key the noise for the token drawn at `position`."""
    key = _splitmix64(_splitmix64(seed & _MASK) ^ position)
    return _signed(key & 0xFFFFFFFF), _signed(key >> 32)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def choose(processed: Tensor, rows: Sequence[Row], salts: Sequence[int] | None = None) -> list[int]:
    """Returns the next token of each row: the likeliest for greedy rows, else a seeded draw.

    The token is -1 where none is possible. `processed` is float32 `[rows, vocab]`; each row has one stream. A
    draw with a salt is independent of the row's own draw.
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
    """Returns the key of the noise for the row's next token; each 64-bit salt gives independent noise."""
    return draw_key(stream_seed(row.seed, row.streams[0]) ^ salt, len(row.tokens))
