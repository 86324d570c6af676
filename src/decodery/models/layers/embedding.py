"""Maps tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Kernels, Weight
from decodery.kernels.packed_weights import Codes


class Embedding(nn.Module):
    """Returns the rows of weight [vocabulary, width] of tokens [...] times `scale`, plus `residual`.

    The weight is not initialised.

    `multiplied`: the weight is also that of the head.
    """

    def __init__(self, vocab_size: int, width: int, kernels: Kernels, *, multiplied: bool) -> None:
        super().__init__()
        self.kernels = kernels
        self.multiplied = multiplied
        self.weight: Weight = nn.Parameter(torch.empty(vocab_size, width))

    def pack(self, codes: Sequence[Codes] | None = None) -> None:
        """Replaces the weight by the backend's packed form, of itself or of `codes`."""
        plain = self.weight
        assert isinstance(plain, Tensor), "packed already"
        del self.weight
        self.weight = self.kernels.pack_embedding(
            plain if codes is None else codes, multiplied=self.multiplied
        )

    def forward(self, tokens: Tensor, residual: Tensor | None = None, scale: float = 1.0) -> Tensor:
        return self.kernels.embedding(tokens, self.weight, scale, residual)
