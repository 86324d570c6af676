"""The native backend: compiled kernels on the CPU; activations are float32, weights packed.

Every function gives a row the same bits whatever the other rows are, on any number of threads and every
instruction set. None can be differentiated: training takes the reference.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.kernels import reference
from decodery.kernels.blocks import KINDS
from decodery.kernels.library import Kernel, call_layout, library
from decodery.kernels.packed import Codes, PackedWeight, quantise
from decodery.kernels.packed import pack as _pack

__all__ = [
    "attention",
    "embedding",
    "gated_linear",
    "linear",
    "pack",
    "pack_embedding",
    "pack_gated",
    "paged_attention",
    "plan_attention",
    "rms_norm",
    "rotary",
    "row_multiple",
    "swiglu",
    "takes_blocks",
    "write_kv",
]

_STORED = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def row_multiple(dtype: torch.dtype) -> int:
    """1: no padding is needed."""
    return 1


def takes_blocks(kind: str) -> bool:
    """Whether `pack` takes over weights of this GGML type as they are stored, as `Codes`."""
    return kind in KINDS


def pack(weight: Tensor | Codes) -> PackedWeight:
    """A weight [out, in] for `linear` and `embedding`; bfloat16 stays, other floats become float32."""
    return _pack(_codes(weight))


def pack_embedding(weight: Tensor | Codes) -> PackedWeight:
    """The same as `pack`: a packed weight gives its rows and multiplies."""
    return pack(weight)


def pack_gated(weight: Tensor | Codes) -> PackedWeight:
    """A weight [2 * width, in] for `gated_linear`, the gate first."""
    return _pack(_codes(weight), gated=True)


def _codes(weight: Tensor | Codes) -> Codes:
    if isinstance(weight, Codes):
        return weight
    return quantise(weight.detach(), "bfloat16" if weight.dtype == torch.bfloat16 else "float32")


_LINEAR = call_layout("q" * 13)


def linear(
    x: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """`x @ weight.T + bias + residual`: x [..., in], a packed weight [out, in], residual [..., out].

    Weights in codes are multiplied by x rounded to int8 in groups of 32.
    """
    return _product(x, weight, bias, residual, gated=False)


def gated_linear(x: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None) -> Tensor:
    """`swiglu(linear(x, weight, bias))`, the weight packed by `pack_gated`."""
    return _product(x, weight, bias, None, gated=True)


def _product(
    x: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None, residual: Tensor | None, *, gated: bool
) -> Tensor:
    if isinstance(weight, Tensor):
        weight = pack_gated(weight) if gated else pack(weight)
    assert (weight.gated, weight.columns) == (gated, x.shape[-1])
    outs = weight.rows // 2 if gated else weight.rows
    flat = _rows(x)
    out = torch.empty(*x.shape[:-1], outs)
    added = None if residual is None else _rows(residual)
    library().decodery_run(
        _LINEAR.pack(
            Kernel.LINEAR,
            flat.data_ptr(),
            flat.stride(0),
            len(flat),
            weight.data.data_ptr(),
            outs,
            weight.columns,
            weight.format.value.number,
            0 if bias is None else bias.data_ptr(),
            0 if added is None else added.data_ptr(),
            0 if added is None else added.stride(0),
            out.data_ptr(),
            outs,
            gated,
        ),
        1,
    )
    return out


def _rows(x: Tensor) -> Tensor:
    """x [..., width] as a float32 matrix whose rows are each in one piece."""
    flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    if flat.dtype != torch.float32 or flat.stride(1) != 1:
        return flat.float().contiguous()
    return flat


_EMBEDDING = call_layout("q" * 7)


def embedding(ids: Tensor, weight: Tensor | PackedWeight) -> Tensor:
    """The rows of a packed weight [vocabulary, width] that ids [...] name: [..., width]."""
    if isinstance(weight, Tensor):
        return reference.embedding(ids, weight)
    flat = ids.reshape(-1).long().contiguous()
    out = torch.empty(*ids.shape, weight.columns)
    library().decodery_run(
        _EMBEDDING.pack(
            Kernel.EMBEDDING,
            flat.data_ptr(),
            len(flat),
            weight.data.data_ptr(),
            weight.rows,
            weight.columns,
            weight.format.value.number,
            out.data_ptr(),
        ),
        1,
    )
    return out


_NORM = call_layout("qqqqqdq")


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension."""
    flat = _rows(x)
    out = torch.empty(x.shape)
    library().decodery_run(
        _NORM.pack(
            Kernel.NORM,
            flat.data_ptr(),
            flat.stride(0),
            len(flat),
            x.shape[-1],
            weight.data_ptr(),
            eps,
            out.data_ptr(),
        ),
        1,
    )
    return out


_ROTARY = call_layout("q" * 9)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [..., heads, dim] by angles: cos and sin [..., dim], the first half of sin negated."""
    heads, dim = x.shape[-2:]
    # The heads of a row stand side by side, the rows may be apart.
    rows = x if x.dim() == 3 else x.reshape(-1, heads, dim)
    if rows.dtype != torch.float32 or rows.stride()[1:] != (dim, 1):
        rows = rows.float().contiguous()
    out = torch.empty(x.shape)
    library().decodery_run(
        _ROTARY.pack(
            Kernel.ROTARY,
            rows.data_ptr(),
            rows.stride(0),
            len(rows),
            heads,
            dim,
            cos.expand(*x.shape[:-2], dim).contiguous().data_ptr(),
            sin.expand(*x.shape[:-2], dim).contiguous().data_ptr(),
            out.data_ptr(),
            heads * dim,
        ),
        1,
    )
    return out


_SWIGLU = call_layout("q" * 5)


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of [..., 2 * width], the gate first: [..., width]."""
    flat = _rows(gate_up)
    width = flat.shape[1] // 2
    out = torch.empty(*gate_up.shape[:-1], width)
    library().decodery_run(
        _SWIGLU.pack(Kernel.SWIGLU, flat.data_ptr(), flat.stride(0), len(flat), width, out.data_ptr()), 1
    )
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention over whole sequences is torch's: the engine attends over pages."""
    return reference.attention(q, k, v, mask, scale)


@dataclass(frozen=True)
class NativePlan:
    """One step's attention: where each token's key and value go, and the pieces that the kernel works on."""

    tokens: int
    slots: Tensor
    tables: array[int]
    work: Tensor
    works: int
    partials: int
    window: int


def plan_attention(
    page_tables: Sequence[Sequence[int]],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    heads: int,
    kv_heads: int,
    dtype: torch.dtype,
    device: torch.device | str,
    sliding_window: int | None = None,
) -> NativePlan:
    """What `write_kv` and `paged_attention` of all the layers of one step need."""
    tables, places, slots = array("i"), array("q"), array("q")
    for table, start, length in zip(page_tables, starts, lengths, strict=True):
        places.append(len(tables))
        end = start + length
        tables.extend(table[: (end + 15) // 16])
        base = places[-1]
        slots.extend([tables[base + p // 16] * 16 + p % 16 for p in range(start, end)])
    first, count = array("q", starts), array("q", lengths)
    most = sum((n + 14) // 8 * ((s + n + 255) // 256) for s, n in zip(starts, lengths, strict=True))
    work = torch.empty(most * 8, dtype=torch.int32)
    needed = array("q", [0])
    works = library().decodery_plan_attention(
        first.buffer_info()[0],
        count.buffer_info()[0],
        places.buffer_info()[0],
        len(first),
        sliding_window or 0,
        work.data_ptr(),
        most,
        needed.buffer_info()[0],
    )
    assert works <= most
    return NativePlan(
        tokens=len(slots),
        slots=torch.frombuffer(slots, dtype=torch.int64),
        tables=tables,
        work=work,
        works=works,
        partials=needed[0] * heads,
        window=sliding_window or 0,
    )


_WRITE_KV = call_layout("q" * 11)


def write_kv(cache_k: Tensor, cache_v: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
    """Writes k and v [tokens, Hkv, D] into the slots [tokens] of the caches [pages, 16, Hkv, D], in place.

    A page's own bytes stand in another order: keys [Hkv, D, 16], values [Hkv, 16, D]. What is not finite is
    written as 0.
    """
    heads, dim = k.shape[-2:]
    k, v = (
        x if x.dtype == torch.float32 and x.stride()[1:] == (dim, 1) else x.float().contiguous()
        for x in (k, v)
    )
    library().decodery_run(
        _WRITE_KV.pack(
            Kernel.WRITE_KV,
            k.data_ptr(),
            k.stride(0),
            v.data_ptr(),
            v.stride(0),
            len(slots),
            slots.data_ptr(),
            cache_k.data_ptr(),
            cache_v.data_ptr(),
            heads,
            dim,
            _STORED[cache_k.dtype],
        ),
        1,
    )


_ATTENTION = call_layout("q" * 13 + "dqq")


def paged_attention(q: Tensor, cache_k: Tensor, cache_v: Tensor, plan: NativePlan, scale: float) -> Tensor:
    """Attention of ragged queries [tokens, H, D] over the caches' pages: [tokens, H * D]."""
    tokens, heads, dim = q.shape
    if q.dtype != torch.float32 or q.stride()[1:] != (dim, 1):
        q = q.float().contiguous()
    out = torch.empty(tokens, heads * dim)
    partial = torch.empty(plan.partials * (dim + 2))
    if tokens > plan.tokens:
        out[plan.tokens :] = 0
    library().decodery_run(
        _ATTENTION.pack(
            Kernel.ATTENTION,
            q.data_ptr(),
            q.stride(0),
            plan.tokens,
            heads,
            cache_k.shape[2],
            dim,
            cache_k.data_ptr(),
            cache_v.data_ptr(),
            _STORED[cache_k.dtype],
            plan.tables.buffer_info()[0],
            plan.work.data_ptr(),
            plan.works,
            plan.window,
            scale,
            partial.data_ptr(),
            out.data_ptr(),
        ),
        1,
    )
    return out
