"""Implements attention over pages with compiled code."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionKind, AttentionLayer
from decodery.kernels.native.library import Kernel, call_layout
from decodery.kernels.native.native_calls import NativeCalls
from decodery.kernels.reference import torch_kernels

_STORED = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
_WRITE_KV = call_layout("q" * 13)
_ATTENTION = call_layout("q" * 12 + "ddqqqqq")
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


class NativeAttention(NativeCalls):
    """Implements the attention of `decodery.kernels.contract.Kernels`."""

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
        keys: Sequence[int] | None = None,
    ) -> NativePlan:
        """Returns the plan that `write_kv` and `paged_attention` take in all layers of a kind in one step."""
        assert sources is None or (keys is None and kind[2:] == (None, None, False))
        tables, places, slots = array("i"), array("q"), array("q")
        first, count = array("q", starts), array("q", lengths)
        seen = array("q", sources or keys or map(add, starts, lengths))
        for table, start, length, limit in zip(page_tables, first, count, seen, strict=True):
            places.append(len(tables))
            tables.extend(table[: (limit + 15) // 16])
            if sources is not None:
                continue
            if length == 1:
                slots.append(table[start // 16] * 16 + start % 16)
            else:
                slots.extend([table[p // 16] * 16 + p % 16 for p in range(start, start + length)])
        # An upper bound of the work: blocks of 8 queries, each with its keys in segments of 256.
        most = sum(((n + 14) // 8) * ((t + 255) // 256) for n, t in zip(count, seen, strict=True))
        work, partials = array("i", bytes(_WORK_BYTES * most)), array("q", [0])
        sight = kind.window or 0, kind.chunk or 0, kind.causal
        works = self._library.decodery_plan_attention(
            *(part.buffer_info()[0] for part in (first, count, seen, places)),
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
