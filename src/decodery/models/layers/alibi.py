"""Computes biases of attention scores that are linear in the distance of a key."""

from __future__ import annotations

import torch

from decodery.kernels.relative_bias import RelativeBias


def alibi(heads: int, length: int, *, largest: float = 8.0, scale: float = 1.0) -> RelativeBias:
    """Returns the biases in a context of `length` tokens: minus slope times distance, times `scale`.

    The slopes of a power of two of heads are `2 ** (-largest * i / heads)`, for i from 1. Other numbers have
    those of the power below, then every other one of the power above. Press, Smith and Lewis, Train Short,
    Test Long (2022), section 3.
    """
    distances = torch.arange(length - 1, -1, -1, dtype=torch.float64, device="cpu")
    slopes = torch.tensor(_slopes(heads, largest), dtype=torch.float64, device="cpu")
    return RelativeBias((-scale * slopes[:, None] * distances).float(), length - 1)


def alibi_of_both_sides(heads: int, length: int) -> RelativeBias:
    """Returns the biases of `alibi` for queries that also see the keys behind them, by the same slopes."""
    before, zero = alibi(heads, length)
    return RelativeBias(torch.cat([before, before[:, :-1].flip(1)], 1).contiguous(), zero)


def _slopes(heads: int, largest: float) -> list[float]:
    below = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-largest * i / below) for i in range(1, below + 1)]
    between = [2 ** (-largest * i / (2 * below)) for i in range(1, 2 * below, 2)]
    return slopes + between[: heads - below]
