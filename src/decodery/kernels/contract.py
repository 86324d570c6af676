"""What a model asks of the machine: one set of plain functions that every backend offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.relative_bias import RelativeBias

Result = TypeVar("Result")
Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu"]
"""x times the logistic function of x, x times the normal distribution's mass below x (Hendrycks and Gimpel,
2016), its form with tanh, and the positive part of x."""
Weight: TypeAlias = Any
"""A matrix as a backend multiplies by it: a plain tensor, or what that backend's `pack` made of one."""


class Plan(Protocol):
    """What `write_kv` and `paged_attention` of all the layers of one step need."""

    @property
    def tokens(self) -> int:
        """How many tokens the step runs."""


class Kernels(Protocol):
    """The functions of a backend; a module with these functions is a backend.

    Leading dimensions are free unless a shape is given. A function's error against float64 is at most
    twice that of `decodery.kernels.reference.torch_kernels`, and a row of its result has the same bits
    whatever the other rows are, once the number of rows is a multiple of `row_multiple(dtype)`.
    """

    def row_multiple(self, dtype: torch.dtype) -> int:
        """The number of rows that a token batch is padded to a multiple of."""

    def cache_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype that keys and values are kept in for activations of `dtype`, if none is asked for."""

    def exclusive_threads(self) -> AbstractContextManager[None]:
        """Within this, nothing that a step does beside the kernels keeps the cores from them."""

    def takes_page_strides(self) -> bool:
        """Whether a layer's pages may stand at a distance from each other in its caches."""

    def capture(
        self, run: Callable[[], Result], rooms: BufferPool | None = None
    ) -> tuple[Result, Callable[[], None] | None]:
        """Run, and return what does the same again on the same tensors, to the same results, if anything can.

        The tensors and the plan that `run` reads from outside must stay; their content may change. What is
        captured with the same `rooms` shares their memory: results stand until another of these runs.
        """

    def linear(
        self, x: Tensor, weight: Weight, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """`x @ weight.T + bias + residual`, the weight plain [out, in] or what `pack` made of it.

        x [..., in], bias [out], residual [..., out].
        """

    def takes_codes(self) -> bool:
        """Whether weights are packed from `Codes`, of which a matrix may have several one under another."""

    def pack(self, weight: Any) -> Weight:
        """A weight, a tensor or a list of `Codes`, in the form that is fastest here, for inference only."""

    def gated_linear(
        self, x: Tensor, weight: Weight, bias: Tensor | None = None, activation: Activation = "silu"
    ) -> Tensor:
        """`gated(linear(x, weight, bias))`: weight [2 * width, in] or what `pack_gated` made of one."""

    def pack_gated(self, weight: Any) -> Weight:
        """A weight for `gated_linear` in the form that is fastest here, for inference only."""

    def embedding(self, ids: Tensor, weight: Weight) -> Tensor:
        """The rows of weight [vocabulary, width] that ids [...] name: [..., width]."""

    def pack_embedding(self, weight: Any, *, multiplied: bool) -> Weight:
        """A weight for `embedding`, and for `linear` too where it is multiplied; for inference only."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension."""

    def layer_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        residual: Tensor | None = None,
    ) -> Tensor:
        """`(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias + residual` over the last dimension."""

    def angles(self, positions: Tensor, frequencies: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
        """Cosines and sines [..., 2 * pairs] for `rotary`, of positions [...] times frequencies [pairs]."""

    def rotary(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates x [..., heads, dim] by angles: cos and sin [..., dim], the first half of sin negated."""

    def activation(self, x: Tensor, name: Activation) -> Tensor:
        """The activation of each element of x [...]."""

    def gated(self, gate_up: Tensor, activation: Activation = "silu") -> Tensor:
        """`activation(gate) * up` of [..., 2 * width], the gate first: [..., width]."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Attention over whole sequences: q [B, S, H, D], k and v [B, T, Hkv, D], out [B, S, H * D]."""

    def plan_attention(
        self,
        page_tables: Sequence[Sequence[int]],
        starts: Sequence[int],
        lengths: Sequence[int],
        *,
        heads: int,
        kv_heads: int,
        dtype: torch.dtype,
        device: torch.device | str,
        sliding_window: int | None = None,
    ) -> Plan:
        """What `write_kv` and `paged_attention` of all the layers of one step need."""

    def write_kv(self, cache_k: Tensor, cache_v: Tensor, plan: Any, k: Tensor, v: Tensor) -> None:
        """Writes k and v [tokens, Hkv, D] into the plan's slots of the caches.

        The caches are [pages, 16, Hkv, `stored_width(D, dtype)`] in float32, float16, bfloat16 or int8; in
        which order a page holds its numbers is the backend's matter.
        """

    def paged_attention(
        self,
        q: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        plan: Any,
        scale: float,
        bias: RelativeBias | None = None,
    ) -> Tensor:
        """Attention of ragged queries [tokens, H, D] over the plan's pages of the caches: [tokens, H * D].

        `bias` is added to the scaled scores.
        """
