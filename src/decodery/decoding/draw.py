"""What keys the noise of a draw, which is a pure function of (seed, position, token)."""

from __future__ import annotations

_MASK = 2**64 - 1


def _mixed(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def stream_seed(seed: int, stream: int) -> int:
    """The seed of a request's stream: the first stream has the request's own."""
    return seed & _MASK if stream == 0 else _mixed((seed & _MASK) ^ _mixed(stream))


def draw_key(seed: int, position: int) -> tuple[int, int]:
    """The two int32 words that key the noise for the token drawn at `position`."""
    key = _mixed(_mixed(seed & _MASK) ^ position)
    return _signed(key & 0xFFFFFFFF), _signed(key >> 32)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word
