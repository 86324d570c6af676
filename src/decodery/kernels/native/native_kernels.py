"""Implements the kernels with compiled code on the CPU; activations are float32, weights packed.

Every function gives a row the same bits whatever the other rows are, on any number of threads and every
instruction set. None is differentiable: training uses the reference kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate

import torch
from torch import Tensor

from decodery.kernels.contract import Activation, PositionGrowth
from decodery.kernels.native.library import Kernel, call_layout
from decodery.kernels.native.native_attention import NativeAttention
from decodery.kernels.native.native_calls import ACTIVATIONS, CLIP, PACK_FIRST
from decodery.kernels.native.native_experts import NativeExperts
from decodery.kernels.packed_weights import Codes, PackedWeight, Stacked, stack
from decodery.kernels.quantise import codes_of
from decodery.kernels.reference import torch_kernels
from decodery.kernels.threads import threads_set

_LINEAR = call_layout("q" * 13)
_EMBEDDING = call_layout("q" * 6 + "dqqq")
_NORM = call_layout("q" * 8 + "dqqqq")
_LAYER_NORM = call_layout("q" * 9 + "dqqqq")
_ROTARY = call_layout("q" * 10)
_JOIN = call_layout("q" * 9)
_MULTIPLY = call_layout("q" * 8)
_ACTIVATE = call_layout("q" * 7 + "d")
_ANGLES = call_layout("qqqqddqdqqqq")


class NativeKernels(NativeAttention, NativeExperts):
    """Implements `decodery.kernels.contract.Kernels` for one model; `capture` makes its calls replayable."""

    def cache_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Returns float16: attention reads half the bytes, and the rounding error is far below that of int8
        activations.
        """
        return torch.float16

    def exclusive_threads(self, threads: int | None = None) -> AbstractContextManager[None]:
        """Runs the kernels on `threads` threads, and torch on one, inside the context.

        With two threads of torch, one copy of a page made a step of four beams 40% slower.
        """
        return threads_set(torch_threads=1, kernel_threads=threads)

    def takes_page_strides(self) -> bool:
        """Returns True: pages that are contiguous over all layers are cheap to copy and to use for the first
        time.
        """
        return True

    def takes_codes(self) -> bool:
        """Returns True: `pack` takes weights as they are stored, or quantised."""
        return True

    def pack(self, weight: Tensor | Sequence[Codes]) -> PackedWeight | Stacked:
        """Returns a weight [out, in] for `linear` and `embedding`; bfloat16 is kept, other floats become
        float32.
        """
        return stack(codes_of(weight), arena=self._arena)

    def pack_embedding(self, weight: Tensor | Sequence[Codes], *, multiplied: bool) -> PackedWeight | Stacked:
        """Returns the result of `pack`: one packed weight serves both `embedding` and `linear`."""
        return self.pack(weight)

    def pack_gated(self, weight: Tensor | Sequence[Codes]) -> PackedWeight | Stacked:
        """Returns a weight [2 * width, in] for `gated_linear`, the gate first."""
        return stack(codes_of(weight), gated=True, arena=self._arena)

    def _packed(
        self, weight: Tensor | PackedWeight | Stacked, pack: Callable[[Tensor], PackedWeight | Stacked]
    ) -> PackedWeight | Stacked:
        if isinstance(weight, Tensor):
            self._fall_back(f"packing a plain weight {list(weight.shape)}", PACK_FIRST)
            return pack(weight)
        return weight

    def linear(
        self,
        x: Tensor,
        weight: Tensor | PackedWeight | Stacked,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: Activation | None = None,
    ) -> Tensor:
        """Computes `activation(x @ weight.T + bias) + residual`: x [..., in], a packed weight [out, in],
        residual [..., out].

        Quantised weights are multiplied by x rounded to int8 in groups of 32.
        """
        packed = self._packed(weight, self.pack)
        out = self._empty(*x.shape[:-1], packed.rows)
        first, gate = 0, 0 if activation is None else -1 - ACTIVATIONS[activation]
        for part in packed.parts if isinstance(packed, Stacked) else (packed,):
            assert not part.gated
            self._product(x, part, part.rows, bias, residual, out, first, gate)
            first += part.rows
        return out

    def gated_linear(
        self,
        x: Tensor,
        weight: Tensor | PackedWeight | Stacked,
        bias: Tensor | None = None,
        activation: Activation = "silu",
    ) -> Tensor:
        """Computes `gated(linear(x, weight, bias))`, the weight packed by `pack_gated`."""
        packed = self._packed(weight, self.pack_gated)
        if isinstance(packed, Stacked):
            return self.gated(self.linear(x, packed, bias), activation)
        assert packed.gated
        out = self._empty(*x.shape[:-1], packed.rows // 2)
        gate = 1 + ACTIVATIONS[activation]
        self._product(x, packed, packed.rows // 2, bias, None, out, gate=gate)
        return out

    def _product(
        self,
        x: Tensor,
        weight: PackedWeight,
        outs: int,
        bias: Tensor | None,
        residual: Tensor | None,
        out: Tensor,
        first: int = 0,
        gate: int = 0,
    ) -> None:
        """Writes a product into `outs` columns of out [..., all outputs], from column `first` on."""
        assert x.shape[-1] == weight.columns
        flat = self._rows(x)
        added = None if residual is None else self._rows(residual)
        offset = None if bias is None else self._vector(bias)
        self._run(
            _LINEAR,
            Kernel.LINEAR,
            flat.data_ptr(),
            flat.stride(0),
            len(flat),
            weight.data.data_ptr(),
            outs,
            weight.columns,
            weight.format.value.number,
            0 if offset is None else offset.data_ptr() + 4 * first,
            0 if added is None else added.data_ptr() + 4 * first,
            0 if added is None else added.stride(0),
            out.data_ptr() + 4 * first,
            out.shape[-1],
            gate,
        )

    def embedding(
        self,
        ids: Tensor,
        weight: Tensor | PackedWeight,
        scale: float = 1.0,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Computes `weight[ids] * scale + residual`: ids [...], a packed weight [vocabulary, width]."""
        if isinstance(weight, Tensor):
            self._fall_back(f"reading a plain weight {list(weight.shape)}", PACK_FIRST)
            return torch_kernels.embedding(ids, weight, scale, residual)
        assert ids.dtype == torch.int64
        assert ids.is_contiguous()
        added = None if residual is None else self._rows(residual)
        out = self._empty(*ids.shape, weight.columns)
        self._run(
            _EMBEDDING,
            Kernel.EMBEDDING,
            ids.data_ptr(),
            ids.numel(),
            weight.data.data_ptr(),
            weight.rows,
            weight.columns,
            weight.format.value.number,
            scale,
            0 if added is None else added.data_ptr(),
            0 if added is None else added.stride(0),
            out.data_ptr(),
        )
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        """Computes `x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension."""
        flat, *sizes = self._rows_of_heads(x)
        scale, by_head = self._weights_of_heads(weight, x)
        added, *steps = (None, 0, 0) if residual is None else self._rows_of_heads(residual)[:3]
        out = self._empty(*x.shape)
        self._run(
            _NORM,
            Kernel.NORM,
            flat.data_ptr(),
            *sizes,
            x.shape[-1],
            scale.data_ptr(),
            by_head,
            eps,
            out.data_ptr(),
            0 if added is None else added.data_ptr(),
            *steps,
        )
        return out

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
        """
        flat, *sizes = self._rows_of_heads(x)
        scale, by_head = self._weights_of_heads(weight, x)
        added, *steps = (None, 0, 0) if residual is None else self._rows_of_heads(residual)[:3]
        offset = None if bias is None else self._weights_of_heads(bias, x)[0]
        out = self._empty(*x.shape)
        self._run(
            _LAYER_NORM,
            Kernel.LAYER_NORM,
            flat.data_ptr(),
            *sizes,
            x.shape[-1],
            scale.data_ptr(),
            0 if offset is None else offset.data_ptr(),
            by_head,
            eps,
            out.data_ptr(),
            0 if added is None else added.data_ptr(),
            *steps,
        )
        return out

    def angles(
        self,
        positions: Tensor,
        frequencies: Tensor,
        magnitude: float | tuple[float, float],
        *,
        sets: Tensor | None = None,
        growth: PositionGrowth | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines [..., 2 * pairs] for `rotary`, times `magnitude`."""
        for indices in (positions, *([] if sets is None else [sets])):
            assert indices.dtype == torch.int64
            assert indices.is_contiguous()
        turns, pairs = self._contiguous(frequencies), frequencies.shape[-1]
        shape = *positions.shape, 2 * pairs
        cos, sin = self._empty(*shape), self._empty(*shape)
        magnitudes = magnitude if isinstance(magnitude, tuple) else (magnitude, magnitude)
        self._run(
            _ANGLES,
            Kernel.ANGLES,
            positions.data_ptr(),
            positions.numel(),
            turns.data_ptr(),
            pairs,
            *magnitudes,
            0 if sets is None else sets.data_ptr(),
            *(growth or (0.0, 0, 0)),
            cos.data_ptr(),
            sin.data_ptr(),
        )
        return cos, sin

    def rotary(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotates the first r elements of each head of x [..., heads, dim]: cos and sin are [..., r]."""
        rows = self._heads(x)
        heads, dim = x.shape[-2:]
        turned = cos.shape[-1]
        shape = (*x.shape[:-2], turned)
        angles = [self._contiguous(a.expand(shape)) for a in (cos, sin)]
        out = self._empty(*x.shape)
        self._run(
            _ROTARY,
            Kernel.ROTARY,
            rows.data_ptr(),
            rows.stride(0),
            len(rows),
            heads,
            dim,
            turned,
            angles[0].data_ptr(),
            angles[1].data_ptr(),
            out.data_ptr(),
            heads * dim,
        )
        return out

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns parts [..., heads or 1, width] side by side; a part with one head is repeated for all."""
        heads, widths = max(part.shape[-2] for part in parts), [part.shape[-1] for part in parts]
        out = self._empty(*parts[0].shape[:-2], heads, sum(widths))
        for part, first in zip(parts, accumulate(widths, initial=0), strict=False):
            flat, row, head, count, each = self._rows_of_heads(part.flatten(0, -3))
            self._run(
                _JOIN,
                Kernel.JOIN,
                flat.data_ptr(),
                row,
                head if each == heads else 0,
                count,
                heads,
                part.shape[-1],
                out.data_ptr() + 4 * first,
                heads * sum(widths),
                sum(widths),
            )
        return out

    def activation(self, x: Tensor, name: Activation) -> Tensor:
        """Applies the activation to each element of x [...]."""
        flat = self._rows(x if x.dim() > 1 else x.view(1, -1))
        out = self._empty(*x.shape)
        self._activate(flat, flat.shape[1], ACTIVATIONS[name], False, out)
        return out

    def clip(self, x: Tensor, limit: float) -> Tensor:
        """Limits each element of x [...] to the range from -limit to limit."""
        flat = self._rows(x)
        out = self._empty(*x.shape)
        self._activate(flat, flat.shape[1], CLIP, False, out, limit)
        return out

    def multiply(self, x: Tensor, by: Tensor) -> Tensor:
        """Computes `x * by` for x [..., width] and by [..., width], [width] or [1]."""
        flat = self._rows(x)
        factors = self._vector(by).view(1, -1) if by.dim() == 1 else self._rows(by)
        out = self._empty(*x.shape)
        self._run(
            _MULTIPLY,
            Kernel.MULTIPLY,
            flat.data_ptr(),
            flat.stride(0),
            factors.data_ptr(),
            0 if by.dim() == 1 else factors.stride(0),
            by.shape[-1] == 1,
            len(flat),
            flat.shape[1],
            out.data_ptr(),
        )
        return out

    def gated(self, gate_up: Tensor, activation: Activation = "silu") -> Tensor:
        """Computes `activation(gate) * up` from [..., 2 * width], the gate first: [..., width]."""
        flat = self._rows(gate_up)
        width = flat.shape[1] // 2
        out = self._empty(*gate_up.shape[:-1], width)
        self._activate(flat, width, ACTIVATIONS[activation], True, out)
        return out

    def _activate(
        self, x: Tensor, width: int, number: int, gated: bool, out: Tensor, limit: float = 0.0
    ) -> None:
        self._run(
            _ACTIVATE,
            Kernel.ACTIVATE,
            x.data_ptr(),
            x.stride(0),
            len(x),
            width,
            number,
            gated,
            out.data_ptr(),
            limit,
        )
