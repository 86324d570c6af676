"""Defines mixtures of experts: a router chooses the MLPs that each token goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Activation, GatedActivation, Kernels, Weight
from decodery.kernels.packed_weights import Codes
from decodery.kernels.routing import Routing
from decodery.models.layers.linear import Linear


class Router(Linear):
    """Computes a score for each expert in float32, since rounding it can change which experts are chosen."""

    def pack(self, codes: Sequence[Codes] | None = None) -> None:
        """Replaces the weight by the backend's packed form, in float32 unless `codes` are given."""
        if codes is None:
            assert isinstance(self.weight, nn.Parameter), "packed already"
            self.weight = nn.Parameter(self.weight.float(), requires_grad=False)
        super().pack(codes)

    def forward(
        self, x: Tensor, residual: Tensor | None = None, activation: Activation | None = None
    ) -> Tensor:
        weight = self.weight.float() if isinstance(self.weight, Tensor) else self.weight
        bias = None if self.bias is None else self.bias.float()
        return self.kernels.linear(x.float(), weight, bias, residual, activation)


class ExpertStack(nn.Module):
    """Holds a linear map of each expert: weight [experts, outputs, inputs], bias [experts, outputs].

    gated: it is one of gate and up. The parameters are not initialised.
    """

    def __init__(
        self, experts: int, inputs: int, outputs: int, kernels: Kernels, *, gated: bool, bias: bool = False
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.gated = gated
        self.weight: Weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def pack(self, codes: Sequence[Sequence[Codes]] | None = None) -> None:
        """Replaces the weight by the backend's packed form, of itself or of the `codes` of each expert.

        The plain weight is freed, and there are no more gradients.
        """
        plain = self.weight
        assert isinstance(plain, Tensor), "packed already"
        del self.weight
        self.weight = self.kernels.pack_experts(plain if codes is None else codes, gated=self.gated)


class Experts(nn.Module):
    """Computes the sum of gated MLPs that differ by token, times their weights, plus `residual`.

    `weigh` "input" multiplies an MLP's input by the weight instead of its output. `count` is the number of
    experts of a token.
    """

    def __init__(
        self,
        experts: int,
        count: int,
        width: int,
        inner: int,
        kernels: Kernels,
        *,
        bias: bool = False,
        activation: GatedActivation = "silu",
        weigh: Literal["output", "input"] = "output",
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.experts, self.count = experts, count
        self.activation: GatedActivation = activation
        self.weigh: Literal["output", "input"] = weigh
        self.gate_up = ExpertStack(experts, width, 2 * inner, kernels, gated=True, bias=bias)
        self.down = ExpertStack(experts, inner, width, kernels, gated=False, bias=bias)

    def idle_parameters(self) -> int:
        """Returns the number of parameters that no product of one token reads."""
        every = sum(parameter.numel() for parameter in self.parameters())
        return every // self.experts * (self.experts - self.count)

    def forward(self, x: Tensor, ids: Tensor, weights: Tensor, residual: Tensor | None = None) -> Tensor:
        up, down = self.gate_up.bias, self.down.bias
        return self.kernels.experts(
            x,
            self.gate_up.weight,
            self.down.weight,
            ids,
            weights,
            self.activation,
            biases=None if up is None or down is None else (up, down),
            weigh=self.weigh,
            residual=residual,
        )


class MoE(nn.Module):
    """Computes a mixture of experts, plus an MLP that all tokens share, where given, plus `residual`.

    The router is a linear map from a state to a score for each expert. With `corrected`, a bias of each
    expert changes which are chosen, and not their weights. `shared` is called as `shared(x, residual=...)`.
    """

    def __init__(
        self,
        experts: Experts,
        routing: Routing,
        width: int,
        kernels: Kernels,
        *,
        router_bias: bool = False,
        corrected: bool = False,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        assert routing.count == experts.count
        self.kernels = kernels
        self.routing = routing
        self.router = Router(width, experts.experts, kernels, bias=router_bias)
        self.correction = nn.Parameter(torch.empty(experts.experts)) if corrected else None
        self.experts = experts
        self.shared = shared

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        ids, weights = self.kernels.route(self.router(x), self.routing, self.correction)
        out: Tensor = self.experts(x, ids, weights, residual)
        return out if self.shared is None else self.shared(x, residual=out)


class GatedExpert(nn.Module):
    """Computes an MLP times the logistic function of a score of each token, plus `residual`.

    This is a mixture of one expert.
    """

    ROUTING = Routing(1, "sigmoid", renormalised=False)

    def __init__(self, width: int, inner: int, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.gate = Router(width, 1, kernels)
        self.expert = Experts(1, 1, width, inner, kernels)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out: Tensor = self.expert(x, *self.kernels.route(self.gate(x), self.ROUTING), residual)
        return out
