"""A linear map whose product is the backend's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decodery.kernels.backend import Kernels


class Linear(nn.Module):
    """`x @ weight.T + bias`, weight [outputs, inputs]; the parameters are not initialised."""

    def __init__(self, inputs: int, outputs: int, kernels: Kernels, *, bias: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def pack(self) -> None:
        """Replace the weight by the backend's packed form: no more gradients, and the plain one is freed."""
        self.weight = nn.Parameter(self.kernels.pack(self.weight), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.linear(x, self.weight, self.bias)
