"""Defines a linear map that the backend multiplies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Activation, Kernels, Weight
from decodery.kernels.packed_weights import Codes


class Linear(nn.Module):
    """Computes `activation(x @ weight.T + bias) + residual`, weight [outputs, inputs].

    The parameters are not initialised.
    """

    def __init__(self, inputs: int, outputs: int, kernels: Kernels, *, bias: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight: Weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def pack(self, codes: Sequence[Codes] | None = None) -> None:
        """Replaces the weight by the backend's packed form, of itself or of `codes`: no more gradients.

        The plain weight is freed.
        """
        plain = self.weight
        assert isinstance(plain, Tensor), "packed already"
        del self.weight
        self.weight = self.kernels.pack(plain if codes is None else codes)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, activation: Activation | None = None
    ) -> Tensor:
        return self.kernels.linear(x, self.weight, self.bias, residual, activation)
