"""Defines the functions that a model calls to compute: every backend offers the same set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionKind, AttentionLayer
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.routing import Routing

Result = TypeVar("Result")
Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu"]
"""silu: x times the logistic function of x. gelu: x times the normal distribution's mass below x (Hendrycks
and Gimpel, 2016). gelu_tanh: the approximation of gelu with tanh. relu: the positive part of x."""
GatedActivation: TypeAlias = Activation | Literal["clamped_swiglu"]
"""A function of gate and up: `activation(gate) * up`, or clamped_swiglu: `(up + 1) * gate` times the
logistic function of `1.702 * gate`, with gate at most 7 and up from -7 to 7 (OpenAI, gpt-oss model card,
2025)."""
Weight: TypeAlias = Any
"""A matrix that a backend multiplies by: a plain tensor, or the result of that backend's `pack`."""


class PositionGrowth(NamedTuple):
    """Says how a magnitude grows with the position: `1 + slope * ln(1 + (position + offset) // length)`.

    Llama 4 and Ministral 3 scale queries so, which keeps attention to long contexts sharp (Nakanishi,
    Scalable-Softmax Is Superior for Attention, 2025).
    """

    slope: float
    length: int
    offset: int = 0


class Plan(Protocol):
    """Holds the data of one step that `write_kv` and `paged_attention` share across all layers."""

    @property
    def tokens(self) -> int:
        """Returns the number of tokens that the step runs."""


class Kernels(Protocol):
    """Lists the functions of a backend; a module with these functions is a backend.

    Leading dimensions are free unless a shape is given. A function's error against float64 is at most twice
    that of `decodery.kernels.reference.torch_kernels`. The native backend gives a row of a result the same
    bits whatever the other rows are. torch may sum a row in another order when the number of rows changes.
    """

    def cache_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Returns the default dtype of cached keys and values for activations of `dtype`."""

    def exclusive_threads(self, threads: int | None = None) -> AbstractContextManager[None]:
        """Sets this backend's number of threads for the calling thread inside the context, and limits the
        other thread pool to one thread.

        None leaves this backend's number as it is.
        """

    def takes_page_strides(self) -> bool:
        """True if the pages of a layer need not be contiguous in its caches."""

    def captures(self) -> bool:
        """True if `capture` returns a function that repeats the work."""

    def capture(
        self, run: Callable[[], Result], buffers: BufferPool | None = None, *, guarded: bool = True
    ) -> tuple[Result, Callable[[], None] | None]:
        """Runs `run` and returns its result with a function that repeats the same work, None where nothing
        can.

        The function reads the same tensors and writes to the same results. The tensors and the plan that
        `run` reads from outside must stay allocated; their content may change. Runs captured with the same
        `buffers` share memory, so a result is valid until another of them runs.

        Between its kernels `run` may only make views. If `guarded`, which takes about a millisecond for 30
        layers, any other torch operation raises `CaptureError` where it would not be repeated. No guard sees
        the following, which the function uses as they were in `run`: numbers that Python computes, weights
        that are replaced afterwards, and memory that Python shares by `torch.frombuffer` or DLPack.
        """

    def linear(
        self,
        x: Tensor,
        weight: Weight,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: Activation | None = None,
    ) -> Tensor:
        """Computes `activation(x @ weight.T + bias) + residual`.

        x [..., in], weight [out, in], plain or made by `pack`, bias [out], residual [..., out].
        """

    def takes_codes(self) -> bool:
        """True if weights are packed from `Codes`; the rows of one matrix may come from several of them."""

    def pack(self, weight: Any) -> Weight:
        """Returns a weight, given as a tensor or a list of `Codes`, in this backend's fastest form, for
        inference only.
        """

    def gated_linear(
        self, x: Tensor, weight: Weight, bias: Tensor | None = None, activation: Activation = "silu"
    ) -> Tensor:
        """Computes `gated(linear(x, weight, bias))`, the weight plain [2 * width, in] or made by
        `pack_gated`.
        """

    def pack_gated(self, weight: Any) -> Weight:
        """Returns a weight for `gated_linear` in this backend's fastest form, for inference only."""

    def embedding(
        self, ids: Tensor, weight: Weight, scale: float = 1.0, residual: Tensor | None = None
    ) -> Tensor:
        """Computes `weight[ids] * scale + residual`: ids [...], weight [vocabulary, width], result [...,
        width].
        """

    def pack_embedding(self, weight: Any, *, multiplied: bool) -> Weight:
        """Returns a weight for `embedding`, and for `linear` too if `multiplied`; for inference only."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        """Computes `x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension.

        x and residual may be [rows, heads, width] with any strides of rows and heads, such as some heads of a
        product. Then the weight may be [heads, width], too.
        """

    def layer_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Computes `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias + residual` over the last
        dimension.

        x and residual may have the strides of those of `rms_norm`, and weight and bias the shape of its
        weight.
        """

    def angles(
        self,
        positions: Tensor,
        frequencies: Tensor,
        magnitude: float | tuple[float, float],
        *,
        sets: Tensor | None = None,
        growth: PositionGrowth | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines [..., 2 * pairs] for `rotary`, times `magnitude`.

        The angles are positions [...] times frequencies [pairs]. With `sets` [...] in int64, which are 0 or 1
        for each position, there are two sets of frequencies [2, pairs] and two magnitudes. `growth`
        multiplies the magnitude.
        """

    def rotary(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates the first r elements of each head of x [..., heads, dim] and copies the others.

        cos and sin are [..., r], the first half of sin negated.
        """

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns parts [..., heads or 1, width] side by side: [..., heads, sum of the widths].

        A part with one head is repeated for all.
        """

    def activation(self, x: Tensor, name: Activation) -> Tensor:
        """Applies the activation to each element of x [...]."""

    def clip(self, x: Tensor, limit: float) -> Tensor:
        """Limits each element of x [...] to the range from -limit to limit."""

    def multiply(self, x: Tensor, by: Tensor) -> Tensor:
        """Computes `x * by` for x [..., width] and by [..., width], [width] or [1].

        The rows of both may have any stride.
        """

    def gated(self, gate_up: Tensor, activation: Activation = "silu") -> Tensor:
        """Computes `activation(gate) * up` from [..., 2 * width], the gate first: [..., width]."""

    def route(
        self,
        scores: Tensor,
        routing: Routing,
        bias: Tensor | None = None,
        scales: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the experts that scores [..., experts] choose, in int64, and their weights in float32.

        Both are [..., routing.count], the best expert first. `bias` [experts] changes the choice alone,
        and `scales` [experts] multiply the weights of the chosen.
        """

    def experts(
        self,
        x: Tensor,
        gate_up: Weight,
        down: Weight,
        ids: Tensor,
        weights: Tensor,
        activation: GatedActivation = "silu",
        *,
        biases: tuple[Tensor, Tensor] | None = None,
        weigh: Literal["output", "input"] = "output",
        residual: Tensor | None = None,
    ) -> Tensor:
        """Computes the sum of the outputs of each row's experts, times their weights, plus `residual`.

        x [..., width], ids and weights [..., count] as `route` returns them. An expert is a gated MLP without
        residual: gate_up [experts, 2 * inner, width], down [experts, width, inner], plain or made by
        `pack_experts`, biases [experts, 2 * inner] and [experts, width]. If `weigh` is "input", the weight
        multiplies an expert's input instead of its output.
        """

    def pack_experts(self, weight: Any, *, gated: bool) -> Weight:
        """Returns the matrices of all experts in this backend's fastest form, for inference only.

        They are a tensor [experts, out, in], or for each expert a list of `Codes`. gated: they are gate_up.
        """

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        scale: float,
        *,
        causal: bool = True,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Computes attention over whole sequences: q [B, S, H, D], k [B, T, Hkv, D], v [B, T, Hkv, E]; [B, S,
        H * E].

        `mask` is added to the scores; without one, `causal` decides. `AttentionLayer` explains the others.
        """

    def plan_attention(
        self,
        page_tables: Sequence[Sequence[int]],
        starts: Sequence[int],
        lengths: Sequence[int],
        *,
        kind: AttentionKind,
        dtype: torch.dtype,
        device: torch.device | str,
        sources: Sequence[int] | None = None,
        keys: Sequence[int] | None = None,
    ) -> Plan:
        """Returns the plan that `write_kv` and `paged_attention` take in all layers of a kind in one step.

        Sequence s runs the positions `starts[s] .. starts[s] + lengths[s] - 1`. Its keys and values are in
        the pages `page_tables[s]`. With `sources` these are of another sequence of `sources[s]` positions, at
        least one, all of which the queries see; nothing is written by such a plan. With `keys` the queries
        see none but the first `keys[s]` positions, of which each query must see one. Only one of the two may
        be given.
        """

    def write_kv(self, cache_k: Tensor, cache_v: Tensor, plan: Any, k: Tensor, v: Tensor) -> None:
        """Writes k [tokens, Hkv, D] and v [tokens, Hkv, E] into the plan's slots of the caches.

        The caches are [pages, 16, Hkv, `stored_width(D or E, dtype)`] in float32, float16, bfloat16 or int8.
        The backend decides in which order a page holds its numbers.
        """

    def paged_attention(
        self, q: Tensor, cache_k: Tensor, cache_v: Tensor, plan: Any, layer: AttentionLayer
    ) -> Tensor:
        """Computes attention of ragged queries [tokens, H, D] over the plan's pages of the caches: [tokens, H
        * E].
        """
