"""Drawing a token as a pure function of (seed, position, token)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.kernels.vocabulary import contenders, gumbel_noise, possible_tokens

_MASK = 2**64 - 1
# Tokens a row beyond which it pays to look for those that can win.
_MANY = 2000


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


def draw(logits: Tensor, keys: Sequence[tuple[int, int]]) -> Tensor:
    """One token for each row: the argmax of logit plus Gumbel noise over the tokens that are above -inf.

    `logits` is float32 `[rows, vocab]`, processed, of any normalisation; `keys[i]` is `draw_key` of row i's
    seed and position. The result is int64 `[rows]`; a row without any token gets 0. Rows do not influence
    each other.
    """
    each = torch.tensor(keys, dtype=torch.int32, device=logits.device)
    counts = torch.count_nonzero(logits > -torch.inf, dim=-1).tolist()
    narrow = [i for i, count in enumerate(counts) if count <= _MANY]
    chosen = logits.new_zeros(len(counts), dtype=torch.int64)
    if narrow:
        own = logits if len(narrow) == len(counts) else logits[narrow]
        chosen[narrow] = _draw_among_few(own, each[narrow], [counts[i] for i in narrow])
    for i, count in enumerate(counts):
        if count > _MANY:
            # Noise is dear, so it is formed for the tokens only that can win.
            tokens = contenders(logits[i], each[i])
            noise = gumbel_noise(each[i].expand(len(tokens), 2), tokens.int())
            chosen[i] = tokens[(logits[i, tokens] + noise).argmax()]
    return chosen


def _draw_among_few(logits: Tensor, keys: Tensor, counts: Sequence[int]) -> Tensor:
    """The draws of rows of which so many tokens are above -inf."""
    alive, tokens = possible_tokens(logits)
    perturbed = logits[alive, tokens] + gumbel_noise(keys[alive], tokens.int())
    chosen = []
    start = 0
    for count in counts:
        end = start + count
        chosen.append(tokens[start + perturbed[start:end].argmax()] if count else tokens.new_zeros(()))
        start = end
    return torch.stack(chosen)
