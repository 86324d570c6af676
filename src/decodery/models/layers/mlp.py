"""Defines the feed-forward layers: with a gate, and without one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Activation, Kernels, Weight
from decodery.kernels.packed_weights import Codes
from decodery.models.layers.linear import Linear


class GatedLinear(nn.Module):
    """Computes `activation(gate(x)) * up(x)`; gate and up are one linear map, weight [2 * outputs, inputs].

    The parameters are not initialised.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernels: Kernels,
        *,
        bias: bool = False,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.activation: Activation = activation
        self.weight: Weight = nn.Parameter(torch.empty(2 * outputs, inputs))
        self.bias = nn.Parameter(torch.empty(2 * outputs)) if bias else None

    def pack(self, codes: Sequence[Codes] | None = None) -> None:
        """Replaces the weight by the backend's packed form, of itself or of `codes`: no more gradients.

        The plain weight is freed.
        """
        plain = self.weight
        assert isinstance(plain, Tensor), "packed already"
        del self.weight
        self.weight = self.kernels.pack_gated(plain if codes is None else codes)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.gated_linear(x, self.weight, self.bias, self.activation)


class GatedMLP(nn.Module):
    """Computes `down(activation(gate(x)) * up(x)) + residual`; `down_bias` None is `bias`.

    Shazeer, GLU Variants Improve Transformer (2020).
    """

    def __init__(
        self,
        width: int,
        inner: int,
        kernels: Kernels,
        *,
        bias: bool = False,
        activation: Activation = "silu",
        down_bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.gate_up = GatedLinear(width, inner, kernels, bias=bias, activation=activation)
        self.down = Linear(inner, width, kernels, bias=bias if down_bias is None else down_bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out: Tensor = self.down(self.gate_up(x), residual)
        return out


class PlainMLP(nn.Module):
    """Computes `down(activation(up(x))) + residual` (Vaswani et al., 2017, section 3.3)."""

    def __init__(
        self, width: int, inner: int, activation: Activation, kernels: Kernels, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.up = Linear(width, inner, kernels, bias=bias)
        self.down = Linear(inner, width, kernels, bias=bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out: Tensor = self.down(self.up(x, activation=self.activation), residual)
        return out
