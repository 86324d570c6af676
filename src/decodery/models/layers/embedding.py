"""Tokens to vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decodery.kernels.backend import Kernels


class Embedding(nn.Module):
    """The rows of weight [vocabulary, width] that tokens [...] name; the weight is not initialised."""

    def __init__(self, vocab_size: int, width: int, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.kernels.embedding(tokens, self.weight)
