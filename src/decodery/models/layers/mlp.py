"""The gated feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn

from decodery.kernels.backend import Kernels
from decodery.models.layers.linear import Linear


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`; gate and up are one map. Shazeer, GLU Variants (2020)."""

    def __init__(self, width: int, inner: int, kernels: Kernels, *, bias: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.gate_up = Linear(width, 2 * inner, kernels, bias=bias)
        self.down = Linear(inner, width, kernels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.kernels.swiglu(self.gate_up(x)))
        return out
