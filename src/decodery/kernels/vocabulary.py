"""Kernels over the vocabulary, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

# Odd constants of well-mixing 32-bit finalizers, as signed int32 (torch multiplies int32 modulo 2^32).
_M1 = 0x7FEB352D
_M2 = 0x846CA68B - 2**32
_GOLDEN = 0x9E3779B1 - 2**32


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a pure function of key and token.

    `keys` is int32 `[n, 2]`, `tokens` int32 `[n]`; the result is float32 `[n]`. A counter-based hash gives 32
    random bits u; -log(-log(1 - u)) is formed through log1p, so that its upper tail stays exact (Gumbel 1954;
    the trick of adding it to log-probabilities is "Gumbel-max", Maddison et al. 2014).
    """
    x = tokens * _GOLDEN
    x ^= keys[:, 0]
    x = _mixed(x)
    x ^= keys[:, 1]
    x = _mixed(x)
    uniform = x.to(torch.float64).add_(2147483648.5).mul_(2.0**-32).to(torch.float32)
    return torch.log1p_(uniform.neg_()).neg_().log_().neg_()


def _mixed(x: Tensor) -> Tensor:
    x = x ^ (_shifted(x, 16))
    x *= _M1
    x ^= _shifted(x, 15)
    x *= _M2
    x ^= _shifted(x, 16)
    return x


def _shifted(x: Tensor, bits: int) -> Tensor:
    # torch shifts int32 arithmetically; the mask makes it logical.
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def outside_nucleus(logits: Tensor, mass: Tensor) -> Tensor:
    """Which tokens are less likely than all of the fewest likeliest ones whose probability reaches `mass`.

    `logits` is float32 `[rows, vocab]` (-inf allowed), `mass` float32 `[rows]`; the result is bool
    `[rows, vocab]`. Looks at ever more of the likeliest tokens until every row's mass is reached, so that a
    peaked distribution is never sorted whole.
    """
    vocab = logits.shape[-1]
    # A row-wise kernel; a plain reduction would sum in another order for another number of rows.
    logprobs = logits.log_softmax(-1)
    count = min(256, vocab)
    while True:
        top = logprobs.topk(count, dim=-1).values
        cumulative = top.exp().cumsum(-1)
        reached = cumulative >= mass[:, None]
        if count == vocab or bool(reached[:, -1].all()):
            break
        count = min(count * 8, vocab)
    last = torch.where(reached[:, -1:], reached.int().argmax(-1, keepdim=True), count - 1)
    # By value: which of equal tokens the list holds depends on how many were looked at.
    return logprobs < top.gather(-1, last)


def kth_largest(logits: Tensor, counts: Tensor) -> Tensor:
    """The `counts[i]`-th largest logit of row i: `[rows, vocab]` and int64 `[rows]` give `[rows, 1]`."""
    top = logits.topk(int(counts.max()), dim=-1).values
    return top.gather(-1, counts[:, None] - 1)
