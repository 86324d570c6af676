"""Normalises rows by their root mean square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Kernels


class RMSNorm(nn.Module):
    """Computes `x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension.

    The weight is not initialised.
    """

    def __init__(self, width: int, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.kernels.rms_norm(x, self.weight, self.eps, residual)
