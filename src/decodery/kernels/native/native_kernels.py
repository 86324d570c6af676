"""Implements the kernels with compiled code on the CPU; activations are float32, weights packed.

Every function gives a row the same bits whatever the other rows are, on any number of threads and every
instruction set. None is differentiable: training uses the reference kernels.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import add
from typing import TypeVar

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionKind, AttentionLayer
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.contract import Activation, PositionGrowth
from decodery.kernels.native.library import Kernel, call_layout, library
from decodery.kernels.native.recorded_step import RecordedStep, lost
from decodery.kernels.packed_weights import Arena, Codes, PackedWeight, Stacked, stack
from decodery.kernels.quantise import quantise
from decodery.kernels.reference import torch_kernels
from decodery.kernels.threads import threads_set

Result = TypeVar("Result")

_STORED = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
_ACTIVATIONS: dict[Activation, int] = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}
_LINEAR = call_layout("q" * 13)
_EMBEDDING = call_layout("q" * 6 + "dqqq")
_NORM = call_layout("q" * 8 + "dqqqq")
_LAYER_NORM = call_layout("q" * 9 + "dqqqq")
_ROTARY = call_layout("q" * 10)
_ACTIVATE = call_layout("q" * 7)
_WRITE_KV = call_layout("q" * 13)
_ATTENTION = call_layout("q" * 12 + "ddqqqqq")
_ANGLES = call_layout("qqqqddqdqqqq")
_PACK_FIRST = "pack the weight when the model is loaded, as load_for_inference does"
_WORK_BYTES = 36  # Of an item of work: Work in native/attention.hpp.


@dataclass(frozen=True)
class NativePlan:
    """Holds one step's attention.

    `words` is the data that the kernels read (AttentionStep in native/abi.hpp); `kept` owns the memory of its
    addresses.
    """

    tokens: int
    words: array[int]
    kept: list[object]

    def become(self, other: NativePlan) -> None:
        """Replaces the content by that of another step, in place: calls captured with this plan then run that
        step.
        """
        self.words[:] = other.words
        self.kept[:] = [other]


class _Recording(threading.local):
    """Holds the step that the calling thread records, if any."""

    step: RecordedStep | None = None


class NativeKernels:
    """Implements `decodery.kernels.contract.Kernels` for one model; `capture` makes its calls replayable."""

    def __init__(self) -> None:
        self._library = library()
        # Engines over one model may run in several threads.
        self._recording = _Recording()
        self._arena = Arena()
        self._buffers = BufferPool()

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

    def captures(self) -> bool:
        """Returns True: a replay runs a step's kernel calls without Python between them."""
        return True

    def capture(
        self, run: Callable[[], Result], buffers: BufferPool | None = None, *, guarded: bool = True
    ) -> tuple[Result, Callable[[], None]]:
        """Runs `run` and returns its result with a function that makes the same kernel calls on the same
        tensors again.

        A kernel that would fall back on torch, to copy an argument or to pack a weight, raises `CaptureError`
        also if not `guarded`.
        """
        recorded = self._recording.step = RecordedStep(buffers or BufferPool(), guarded=guarded)
        try:
            # In this mode the guard sees tolist() and numpy(), too.
            with torch.inference_mode(), recorded.guard:
                return run(), recorded.replay
        finally:
            self._recording.step = None

    def _run(self, layout: struct.Struct, *words: float) -> None:
        call = layout.pack(*words)
        recorded = self._recording.step
        if recorded is not None:
            recorded.add(call)
        self._library.decodery_run(call, 1)

    def _empty(self, *shape: int) -> Tensor:
        recorded = self._recording.step
        return (self._buffers if recorded is None else recorded.buffers).empty(shape)

    def _fall_back(self, operation: str, remedy: str) -> None:
        """Raises `CaptureError` while a step is captured; else torch may do the operation."""
        if self._recording.step is not None:
            raise lost(operation, remedy)

    def _copied(self, x: Tensor) -> Tensor:
        """Returns x as a contiguous float32 copy."""
        self._fall_back(
            f"a copy of {list(x.shape)} in {x.dtype} with the strides {x.stride()}",
            "give the kernel float32 whose rows are contiguous",
        )
        return x.float().contiguous()

    def _contiguous(self, x: Tensor) -> Tensor:
        """Returns x as a contiguous float32 tensor."""
        return x if x.dtype == torch.float32 and x.is_contiguous() else self._copied(x)

    def _rows(self, x: Tensor) -> Tensor:
        """Returns x [..., width] as a float32 matrix with contiguous rows."""
        if x.dtype == torch.float32 and x.stride(-1) == 1:
            if x.dim() == 2:
                return x
            if x.is_contiguous():
                return x.view(-1, x.shape[-1])
        copied = self._copied(x)
        return copied.view(-1, x.shape[-1])

    def _vector(self, x: Tensor) -> Tensor:
        """Returns x [width] as contiguous float32."""
        return x if x.dtype == torch.float32 and x.stride(0) == 1 else self._copied(x)

    def _heads(self, x: Tensor) -> Tensor:
        """Returns x [..., heads, dim] as float32 [rows, heads, dim] with contiguous rows."""
        heads, dim = x.shape[-2:]
        if x.dim() == 3 and x.dtype == torch.float32 and x.stride()[1:] == (dim, 1):
            return x
        if x.dtype != torch.float32 or not x.is_contiguous():
            x = self._copied(x)
        return x.view(-1, heads, dim)

    def _rows_of_heads(self, x: Tensor) -> tuple[Tensor, int, int, int, int]:
        """Returns x in float32 with its strides of rows and heads, then their numbers.

        Only x of three dimensions has several heads in a row.
        """
        if x.dim() != 3:
            flat = self._rows(x)
            return flat, flat.stride(0), 0, len(flat), 1
        if x.dtype != torch.float32 or x.stride(2) != 1:
            x = self._copied(x)
        return x, x.stride(0), x.stride(1), x.shape[0], x.shape[1]

    def _weights_of_heads(self, weight: Tensor, x: Tensor) -> tuple[Tensor, int]:
        """Returns the weight of a norm of x in float32 and the numbers between two heads': 0 if they share
        one.
        """
        if weight.dim() == 1:
            return self._vector(weight), 0
        assert weight.shape == x.shape[-2:]
        assert x.dim() == 3
        return self._contiguous(weight), x.shape[-1]

    def takes_codes(self) -> bool:
        """Returns True: `pack` takes weights as they are stored, or quantised."""
        return True

    def pack(self, weight: Tensor | Sequence[Codes]) -> PackedWeight | Stacked:
        """Returns a weight [out, in] for `linear` and `embedding`; bfloat16 is kept, other floats become
        float32.
        """
        return stack(_codes(weight), arena=self._arena)

    def pack_embedding(self, weight: Tensor | Sequence[Codes], *, multiplied: bool) -> PackedWeight | Stacked:
        """Returns the result of `pack`: one packed weight serves both `embedding` and `linear`."""
        return self.pack(weight)

    def pack_gated(self, weight: Tensor | Sequence[Codes]) -> PackedWeight | Stacked:
        """Returns a weight [2 * width, in] for `gated_linear`, the gate first."""
        return stack(_codes(weight), gated=True, arena=self._arena)

    def _packed(
        self, weight: Tensor | PackedWeight | Stacked, pack: Callable[[Tensor], PackedWeight | Stacked]
    ) -> PackedWeight | Stacked:
        if isinstance(weight, Tensor):
            self._fall_back(f"packing a plain weight {list(weight.shape)}", _PACK_FIRST)
            return pack(weight)
        return weight

    def linear(
        self,
        x: Tensor,
        weight: Tensor | PackedWeight | Stacked,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Computes `x @ weight.T + bias + residual`: x [..., in], a packed weight [out, in], residual [...,
        out].

        Quantised weights are multiplied by x rounded to int8 in groups of 32.
        """
        packed = self._packed(weight, self.pack)
        out = self._empty(*x.shape[:-1], packed.rows)
        first = 0
        for part in packed.parts if isinstance(packed, Stacked) else (packed,):
            assert not part.gated
            self._product(x, part, part.rows, bias, residual, out, first)
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
        gate = 1 + _ACTIVATIONS[activation]
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
            self._fall_back(f"reading a plain weight {list(weight.shape)}", _PACK_FIRST)
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

    def activation(self, x: Tensor, name: Activation) -> Tensor:
        """Applies the activation to each element of x [...]."""
        flat = self._rows(x if x.dim() > 1 else x.view(1, -1))
        out = self._empty(*x.shape)
        self._activate(flat, flat.shape[1], name, False, out)
        return out

    def gated(self, gate_up: Tensor, activation: Activation = "silu") -> Tensor:
        """Computes `activation(gate) * up` from [..., 2 * width], the gate first: [..., width]."""
        flat = self._rows(gate_up)
        width = flat.shape[1] // 2
        out = self._empty(*gate_up.shape[:-1], width)
        self._activate(flat, width, activation, True, out)
        return out

    def _activate(self, x: Tensor, width: int, name: Activation, gated: bool, out: Tensor) -> None:
        self._run(
            _ACTIVATE,
            Kernel.ACTIVATE,
            x.data_ptr(),
            x.stride(0),
            len(x),
            width,
            _ACTIVATIONS[name],
            gated,
            out.data_ptr(),
        )

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
        """Computes attention over whole sequences with torch; the engine attends over pages only."""
        self._fall_back("attention over whole sequences", "attend over pages")
        return torch_kernels.attention(q, k, v, mask, scale, causal=causal, softcap=softcap, sinks=sinks)

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
    ) -> NativePlan:
        """Returns the plan that `write_kv` and `paged_attention` take in all layers of a kind in one step."""
        assert sources is None or kind[2:] == (None, None, False)
        tables, places, slots = array("i"), array("q"), array("q")
        first, count = array("q", starts), array("q", lengths)
        keys = array("q", map(add, starts, lengths) if sources is None else sources)
        for table, start, length, limit in zip(page_tables, first, count, keys, strict=True):
            places.append(len(tables))
            tables.extend(table[: (limit + 15) // 16])
            if sources is not None:
                continue
            if length == 1:
                slots.append(table[start // 16] * 16 + start % 16)
            else:
                slots.extend([table[p // 16] * 16 + p % 16 for p in range(start, start + length)])
        # An upper bound of the work: blocks of 8 queries, each with its keys in segments of 256.
        most = sum(((n + 14) // 8) * ((t + 255) // 256) for n, t in zip(count, keys, strict=True))
        work, partials = array("i", bytes(_WORK_BYTES * most)), array("q", [0])
        sight = kind.window or 0, kind.chunk or 0, kind.causal
        works = self._library.decodery_plan_attention(
            *(part.buffer_info()[0] for part in (first, count, keys, places)),
            len(first),
            *sight,
            work.buffer_info()[0],
            most,
            partials.buffer_info()[0],
        )
        assert works <= most
        addresses = [part.buffer_info()[0] for part in (slots, tables, work)]
        words = array("q", [sum(count), *addresses, works, partials[0], *sight])
        return NativePlan(sum(count), words, [slots, tables, work])

    def write_kv(self, cache_k: Tensor, cache_v: Tensor, plan: NativePlan, k: Tensor, v: Tensor) -> None:
        """Writes k [tokens, Hkv, D] and v [tokens, Hkv, E] into the plan's slots of the caches, in place.

        Within a page the numbers have another order: keys [Hkv, D, 16], values [Hkv, 16, E]. In int8, the 16
        scales follow each [D, 16] or [16, E]. Numbers that are not finite are written as 0.
        """
        k, v = self._heads(k), self._heads(v)
        self._run(
            _WRITE_KV,
            Kernel.WRITE_KV,
            k.data_ptr(),
            k.stride(0),
            v.data_ptr(),
            v.stride(0),
            plan.words.buffer_info()[0],
            cache_k.data_ptr(),
            cache_v.data_ptr(),
            cache_k.stride(0),
            cache_v.stride(0),
            *k.shape[1:],
            v.shape[2],
            _STORED[cache_k.dtype],
        )

    def paged_attention(
        self, q: Tensor, cache_k: Tensor, cache_v: Tensor, plan: NativePlan, layer: AttentionLayer
    ) -> Tensor:
        """Computes attention of ragged queries [tokens, H, D] over the caches' pages: [tokens, H * E].

        A query's result has the same bits whatever the other queries are and however its sequence is cut into
        steps, if the layer is causal.
        """
        tokens, heads, dim = q.shape
        assert tokens == plan.tokens
        q = self._heads(q)
        table = None if layer.bias is None else self._contiguous(layer.bias.table)
        sinks = None if layer.sinks is None else self._contiguous(layer.sinks)
        out = self._empty(tokens, heads * layer.v_width)
        self._run(
            _ATTENTION,
            Kernel.ATTENTION,
            q.data_ptr(),
            q.stride(0),
            heads,
            layer.kv_heads,
            dim,
            layer.v_width,
            cache_k.data_ptr(),
            cache_v.data_ptr(),
            cache_k.stride(0),
            cache_v.stride(0),
            _STORED[cache_k.dtype],
            plan.words.buffer_info()[0],
            layer.scale,
            layer.softcap or 0.0,
            out.data_ptr(),
            0 if table is None else table.data_ptr(),
            0 if table is None else table.shape[1],
            0 if layer.bias is None else layer.bias.zero,
            0 if sinks is None else sinks.data_ptr(),
        )
        return out


def _codes(weight: Tensor | Sequence[Codes]) -> Sequence[Codes]:
    if not isinstance(weight, Tensor):
        return weight
    return [quantise(weight.detach(), "bf16" if weight.dtype == torch.bfloat16 else "float32")]
