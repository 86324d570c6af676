"""Implements mixtures of experts with compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from decodery.kernels.contract import GatedActivation
from decodery.kernels.native.library import Kernel, call_layout
from decodery.kernels.native.native_calls import ACTIVATIONS, PACK_FIRST, NativeCalls
from decodery.kernels.packed_weights import Codes, PackedExperts, pack_experts
from decodery.kernels.quantise import codes_of
from decodery.kernels.routing import Routing

_ROUTE = call_layout("qqqqqqqdd" + "q" * 7)
_EXPERTS = call_layout("q" * 22)


class NativeExperts(NativeCalls):
    """Implements the mixtures of experts of `decodery.kernels.contract.Kernels`."""

    def route(
        self,
        scores: Tensor,
        routing: Routing,
        bias: Tensor | None = None,
        scales: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the experts that scores [..., experts] choose, and their weights: [..., count] each."""
        flat = self._rows(scores)
        added, factors = (None if each is None else self._vector(each) for each in (bias, scales))
        # Two floats have the memory of one index.
        ids = self._empty(*scores.shape[:-1], 2 * routing.count).view(torch.int64)
        weights = self._empty(*scores.shape[:-1], routing.count)
        self._run(
            _ROUTE,
            Kernel.ROUTE,
            flat.data_ptr(),
            flat.stride(0),
            *flat.shape,
            routing.count,
            routing.probability == "sigmoid",
            routing.renormalised,
            routing.factor,
            -1.0 if routing.within is None else routing.within,
            routing.groups,
            routing.kept_groups,
            routing.best_of_group,
            0 if added is None else added.data_ptr(),
            0 if factors is None else factors.data_ptr(),
            ids.data_ptr(),
            weights.data_ptr(),
        )
        return ids, weights

    def pack_experts(self, weight: Tensor | Sequence[Sequence[Codes]], *, gated: bool) -> PackedExperts:
        """Returns the matrices [experts, out, in] for `experts`, one expert's after another's."""
        matrices = list(map(codes_of, weight)) if isinstance(weight, Tensor) else weight
        return pack_experts(matrices, gated=gated, arena=self._arena)

    def experts(
        self,
        x: Tensor,
        gate_up: Tensor | PackedExperts,
        down: Tensor | PackedExperts,
        ids: Tensor,
        weights: Tensor,
        activation: GatedActivation = "silu",
        *,
        biases: tuple[Tensor, Tensor] | None = None,
        weigh: Literal["output", "input"] = "output",
        residual: Tensor | None = None,
    ) -> Tensor:
        """Computes the sum of the outputs of each row's experts, times their weights, plus `residual`.

        Inputs and gated products are rounded to int8 in groups of 32 where the weights are quantised. An
        expert that does not exist adds nothing.
        """
        first, second = self._packed_experts(gate_up, True), self._packed_experts(down, False)
        inner = first.rows // 2
        assert first.gated
        assert not second.gated
        assert second.shape == (first.experts, first.columns, inner)
        assert x.shape[-1] == first.columns
        assert ids.dtype == torch.int64
        assert ids.is_contiguous()
        flat = self._rows(x)
        factors = self._contiguous(weights)
        offsets = [None, None] if biases is None else [self._contiguous(bias) for bias in biases]
        added = None if residual is None else self._rows(residual)
        out = self._empty(*x.shape)
        self._run(
            _EXPERTS,
            Kernel.EXPERTS,
            flat.data_ptr(),
            flat.stride(0),
            len(flat),
            ids.data_ptr(),
            factors.data_ptr(),
            ids.shape[-1],
            first.experts,
            first.data.data_ptr(),
            first.format.value.number,
            first.step,
            second.data.data_ptr(),
            second.format.value.number,
            second.step,
            first.columns,
            inner,
            *(0 if offset is None else offset.data_ptr() for offset in offsets),
            ACTIVATIONS[activation],
            weigh == "input",
            0 if added is None else added.data_ptr(),
            0 if added is None else added.stride(0),
            out.data_ptr(),
        )
        return out

    def _packed_experts(self, weight: Tensor | PackedExperts, gated: bool) -> PackedExperts:
        if isinstance(weight, Tensor):
            self._fall_back(f"packing plain weights {list(weight.shape)}", PACK_FIRST)
            return self.pack_experts(weight, gated=gated)
        return weight
