"""Normalises rows by their root mean square, or by their mean and variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Kernels


class RMSNorm(nn.Module):
    """Computes `x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension.

    The weight is not initialised. With `exact`, it is kept in float32 whatever the model's dtype is: one that
    is stored less 1 would lose its last bits when 1 is added.
    """

    def __init__(self, width: int, eps: float, kernels: Kernels, *, exact: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.eps = eps
        self.exact = exact
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.kernels.rms_norm(x, self.weight, self.eps, residual)


class FixedRMSNorm(nn.Module):
    """Computes `x / sqrt(mean(x^2) + eps)` over the last dimension."""

    def __init__(self, width: int, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.eps = eps
        # No parameter: nothing is loaded, and nothing learned.
        self.ones: Tensor
        self.register_buffer("ones", torch.ones(width, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.rms_norm(x, self.ones, self.eps)


class FixedLayerNorm(nn.Module):
    """Computes `(x - mean(x)) / sqrt(variance(x) + eps) + residual` over the last dimension."""

    def __init__(self, width: int, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.eps = eps
        # No parameter: nothing is loaded, and nothing learned.
        self.ones: Tensor
        self.register_buffer("ones", torch.ones(width, device="cpu"), persistent=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.kernels.layer_norm(x, self.ones, None, self.eps, residual)


class AllHeadsNorm(RMSNorm):
    """Normalises all heads [..., heads, width] together; the weight is [heads * width]."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        assert residual is None
        return super().forward(x.flatten(-2).unsqueeze(-2)).view(x.shape)


class LayerNorm(nn.Module):
    """Computes `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` over the last dimension.

    With `heads`, x is [..., heads, width], and each head has its own weight and bias. The parameters are not
    initialised. Ba, Kiros and Hinton, Layer Normalization (2016).
    """

    def __init__(
        self, width: int, eps: float, kernels: Kernels, *, bias: bool = True, heads: int | None = None
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.eps = eps
        shape = (width,) if heads is None else (heads, width)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.layer_norm(x, self.weight, self.bias, self.eps)
