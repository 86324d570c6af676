"""Implements every kernel with torch in its simplest correct form, differentiable where possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.contract import Activation, GatedActivation, PositionGrowth
from decodery.kernels.kv_formats import restored, stored
from decodery.kernels.reference.attention_plan import AttentionGroup, AttentionPlan, plan_attention
from decodery.kernels.reference.experts import mixed, route
from decodery.kernels.reference.onednn import Readable, pack, pack_readable
from decodery.kernels.threads import threads_set

Result = TypeVar("Result")

__all__ = [
    "activation",
    "angles",
    "attention",
    "cache_dtype",
    "capture",
    "captures",
    "clip",
    "embedding",
    "exclusive_threads",
    "experts",
    "gated",
    "gated_linear",
    "joined",
    "layer_norm",
    "linear",
    "multiply",
    "pack",
    "pack_embedding",
    "pack_experts",
    "pack_gated",
    "paged_attention",
    "plan_attention",
    "rms_norm",
    "rotary",
    "route",
    "takes_codes",
    "takes_page_strides",
    "write_kv",
]


def cache_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of keys and values for activations of `dtype`: the same."""
    return dtype


def exclusive_threads(threads: int | None = None) -> AbstractContextManager[None]:
    """Runs torch on `threads` threads, and the kernels over the vocabulary on one, inside the context.

    torch's threads keep spinning on their cores while they wait for the next operation.
    """
    return threads_set(torch_threads=threads, kernel_threads=1)


def takes_page_strides() -> bool:
    """Returns False: a sequence's keys need no copy if the pages of a layer are contiguous."""
    return False


def captures() -> bool:
    """Returns False: torch's operations are called from Python one by one."""
    return False


def capture(
    run: Callable[[], Result], buffers: BufferPool | None = None, *, guarded: bool = True
) -> tuple[Result, Callable[[], None] | None]:
    """Runs `run`; returns its result and None, because torch's operations cannot be replayed."""
    return run(), None


def linear(
    x: Tensor,
    weight: Tensor | Readable,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Computes `activation(x @ weight.T + bias) + residual`: x [..., in], weight [out, in] or packed."""
    product: Tensor
    if isinstance(weight, Readable):
        weight = weight.packed
    if weight.is_mkldnn:
        product = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    else:
        product = F.linear(x, weight, bias)
    if activation is not None:
        product = _activated(product, activation)
    return product if residual is None else residual + product


def takes_codes() -> bool:
    """Returns False: weights are dequantised for torch."""
    return False


def pack_embedding(weight: Tensor, *, multiplied: bool) -> Tensor | Readable:
    """Returns a weight for `embedding`, and for `linear` too if `multiplied`; it is held once."""
    return pack_readable(weight) if multiplied else weight


def embedding(
    ids: Tensor, weight: Tensor | Readable, scale: float = 1.0, residual: Tensor | None = None
) -> Tensor:
    """Computes `weight[ids] * scale + residual` for indices ids [...]: [..., width]."""
    found = F.embedding(ids, weight) if isinstance(weight, Tensor) else weight.rows(ids)
    scaled = found if scale == 1 else found * scale
    return scaled if residual is None else residual + scaled


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """Computes `x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension.

    The norm is computed in float32 at least. Zhang and Sennrich, Root Mean Square Layer Normalization (2019),
    equation 4.
    """
    width = x.shape[-1]
    if weight.dim() > 1 or weight.dtype != x.dtype:
        wide = x.float() if x.dtype == torch.bfloat16 else x
        normed = (F.rms_norm(wide, (width,), None, eps) * weight).to(x.dtype)
    elif x.dtype == torch.bfloat16:
        # (x, -x) has mean 0 and the mean square of x as its variance: one fused kernel instead of seven.
        both = F.layer_norm(torch.cat((x, -x), -1), (2 * width,), torch.cat((weight, weight)), None, eps)
        normed = both.narrow(-1, 0, width)
    else:
        normed = F.rms_norm(x, (width,), weight, eps)
    return normed if residual is None else residual + normed


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, residual: Tensor | None = None
) -> Tensor:
    """Computes `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias + residual` over the last dimension.

    Ba, Kiros and Hinton, Layer Normalization (2016).
    """
    if weight.dim() > 1:
        wide = x.float() if x.dtype == torch.bfloat16 else x
        scaled = F.layer_norm(wide, (x.shape[-1],), None, None, eps) * weight
        normed = (scaled if bias is None else scaled + bias).to(x.dtype)
    else:
        normed = F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    return normed if residual is None else residual + normed


def angles(
    positions: Tensor,
    frequencies: Tensor,
    magnitude: float | tuple[float, float],
    *,
    sets: Tensor | None = None,
    growth: PositionGrowth | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines [..., 2 * pairs] for `rotary`, times `magnitude`.

    The angles are positions [...] times frequencies [pairs], or with `sets` [...] frequencies [2, pairs].
    """
    factor: Tensor | float
    if sets is None:
        assert isinstance(magnitude, float)
        factor = magnitude
    else:
        frequencies = frequencies[sets]
        factor = torch.tensor(magnitude, device=positions.device)[sets, None]
    if growth is not None:
        times = 1 + (positions + growth.offset) // growth.length
        factor = factor * (1 + growth.slope * times.float().log())[..., None]
    turns = positions[..., None].float() * frequencies
    cos, sin = turns.cos() * factor, turns.sin() * factor
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the first r elements of each head of x [..., heads, dim]: `x * cos + partner(x) * sin`, in
    float32.

    cos and sin are [..., r]. Element i is rotated together with element i + r / 2, as in hub checkpoints; the
    first half of `sin` is negated. Su et al., RoFormer (2021), section 3.4.2, equation 34.
    """
    turned = cos.shape[-1]
    if turned < x.shape[-1]:
        return torch.cat((rotary(x[..., :turned], cos, sin), x[..., turned:]), -1)
    wide = x.float() if x.dtype == torch.bfloat16 else x
    partner = wide.roll(turned // 2, -1)
    return (wide * cos.unsqueeze(-2) + partner * sin.unsqueeze(-2)).to(x.dtype)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Returns parts [..., heads or 1, width] side by side; a part with one head is repeated for all."""
    heads = max(part.shape[-2] for part in parts)
    return torch.cat([part.expand(*part.shape[:-2], heads, -1) for part in parts], -1)


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    # F.gelu has three times the error of this formula on some processors, and is nan at infinity there.
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
}
# The arguments with which oneDNN applies them to its own sums.
_FUSED: dict[Activation, tuple[str, list[float], str]] = {
    "silu": ("swish", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
    "relu": ("relu", [], ""),
}


def activation(x: Tensor, name: Activation) -> Tensor:
    """Applies the activation to each element of x [...], in float32."""
    return _activated(x, name)


def _activated(x: Tensor, name: Activation) -> Tensor:
    wide = x.float() if x.dtype == torch.bfloat16 else x
    return _ACTIVATIONS[name](wide).to(x.dtype)


def clip(x: Tensor, limit: float) -> Tensor:
    """Limits each element of x [...] to the range from -limit to limit."""
    return x.clamp(-limit, limit)


def multiply(x: Tensor, by: Tensor) -> Tensor:
    """Computes `x * by` for x [..., width] and by [..., width], [width] or [1]."""
    return x * by


def gated(gate_up: Tensor, activation: GatedActivation = "silu") -> Tensor:
    """Computes `activation(gate) * up` from [..., 2 * width], the gate first: [..., width], in float32.

    Shazeer, GLU Variants Improve Transformer (2020), equation 6.
    """
    gate, up = gate_up.chunk(2, -1)
    gate = gate.float() if gate.dtype == torch.bfloat16 else gate
    if activation == "clamped_swiglu":
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return ((up + 1) * (gate * torch.sigmoid(1.702 * gate))).to(gate_up.dtype)
    return (_ACTIVATIONS[activation](gate) * up).to(gate_up.dtype)


def gated_linear(
    x: Tensor,
    weight: Tensor | tuple[Tensor, Tensor],
    bias: Tensor | None = None,
    activation: Activation = "silu",
) -> Tensor:
    """Computes `gated(linear(x, weight, bias))`; the weight may be the result of `pack_gated`."""
    if isinstance(weight, Tensor):
        return gated(linear(x, weight, bias), activation)
    gate_bias, up_bias = (None, None) if bias is None else bias.chunk(2)
    gate = torch.ops.mkldnn._linear_pointwise(x, weight[0], gate_bias, *_FUSED[activation])
    product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, weight[1], up_bias, "mul")
    return product


def pack_gated(weight: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Returns the weight [2 * width, in] as packed weights of gate and up, or unchanged where it cannot be
    packed.

    oneDNN then applies the activation and the product with `up` to its sums, which takes a third less time
    for 512 rows in bfloat16.
    """
    gate, up = (pack(part) for part in weight.detach().chunk(2))
    return (gate, up) if gate.is_mkldnn else weight


def experts(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    ids: Tensor,
    weights: Tensor,
    activation: GatedActivation = "silu",
    *,
    biases: tuple[Tensor, Tensor] | None = None,
    weigh: Literal["output", "input"] = "output",
    residual: Tensor | None = None,
) -> Tensor:
    """Computes the sum of the outputs of each row's experts, times their weights, plus `residual`."""
    between = partial(gated, activation=activation)
    return mixed(x, (gate_up, down), ids, weights, between, biases=biases, weigh=weigh, residual=residual)


def pack_experts(weight: Tensor, *, gated: bool) -> Tensor:
    """Returns the matrices [experts, out, in] unchanged."""
    return weight


def attention(
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
    """Computes softmax attention over whole sequences: q [B, S, H, D], k [B, T, Hkv, D], v [B, T, Hkv, E];
    out [B, S, H * E].

    `mask` is added to the scores, [B or 1, H or 1, S or 1, T] in q's dtype; without one, `causal` decides,
    with S = T. `softcap` and `sinks` [H] are those of `AttentionLayer`.
    """
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    if softcap is None and sinks is None:
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and mask is None, scale=scale, enable_gqa=grouped
        )
    else:
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        if mask is None and causal:
            mask = torch.full(q.shape[2:3] * 2, -math.inf, dtype=q.dtype, device=q.device).triu(1)
        out = _plain_attention(q, k, v, mask, scale, softcap, None if sinks is None else sinks[:, None, None])
    return out.transpose(1, 2).flatten(2)


def _plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Computes attention with capped scores and sinks: q [B, H, S, D], k [B, H, T, D], v [B, H, T, E].

    `sinks` has a number for each row of the scores [B, H, S, T], broadcast. The scores are in float32 at
    least. Gemma Team, Gemma 2 (2024), section 2; OpenAI, gpt-oss model card (2025), section 2.3.
    """
    dtype = q.dtype
    if dtype == torch.bfloat16:
        q, k, v = (part.float() for part in (q, k, v))
    scores = q @ k.transpose(-2, -1) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)), -1)
    weights = scores.softmax(-1)[..., : k.shape[-2]]
    return (weights @ v).to(dtype)


def write_kv(cache_k: Tensor, cache_v: Tensor, plan: AttentionPlan, k: Tensor, v: Tensor) -> None:
    """Writes k [tokens, Hkv, D] and v [tokens, Hkv, E] into the plan's slots of the caches in the form of
    `stored`, in place.

    Slot s is offset s % 16 of page s // 16. Numbers that are not finite are written as 0. So a sequence whose
    numbers overflow cannot affect others, although attention multiplies masked values of any sequence by 0.
    """
    for cache, values in ((cache_k, k), (cache_v, v)):
        flat = cache.view(-1, cache.shape[2], cache.shape[3])
        flat.index_copy_(0, plan.slots, stored(values, cache.dtype))


def paged_attention(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, plan: AttentionPlan, layer: AttentionLayer
) -> Tensor:
    """Computes attention of ragged queries [tokens, H, D] over the pages of the plan: [tokens, H * E].

    The caches hold the keys and values of these queries already.
    """
    rows = q.reshape(-1, layer.k_width)
    results = [_grouped(rows, cache_k, cache_v, group, layer) for group in plan.groups]
    out = results[0] if len(results) == 1 else torch.cat(results)
    if plan.order is not None:
        out = out.index_select(0, plan.order)
    return out.view(plan.tokens, layer.heads * layer.v_width)


def _grouped(
    rows: Tensor, cache_k: Tensor, cache_v: Tensor, group: AttentionGroup, layer: AttentionLayer
) -> Tensor:
    if group.queries is not None:
        rows = rows.index_select(0, group.queries)
    q = rows.view(group.batch, layer.kv_heads, group.rows, layer.k_width)
    k, v = _gathered(cache_k, group, q.dtype), _gathered(cache_v, group, q.dtype)
    mask = group.mask
    if layer.bias is not None:
        mask = mask + _bias(group, layer)
    if layer.softcap is None and layer.sinks is None:
        out = F.scaled_dot_product_attention(q, k, v, mask, scale=layer.scale)
    else:
        sinks = None if layer.sinks is None else layer.sinks[_row_heads(group, layer)][..., None]
        out = _plain_attention(q, k, v, mask, layer.scale, layer.softcap, sinks)
    return out.reshape(-1, layer.v_width)


def _row_heads(group: AttentionGroup, layer: AttentionLayer) -> Tensor:
    """Returns the query head of each row: [kv_heads, rows].

    The rows cycle through the heads that share a K/V head.
    """
    device, shared = group.positions.device, layer.heads // layer.kv_heads
    turns = torch.arange(group.rows, device=device) % shared
    return torch.arange(layer.kv_heads, device=device)[:, None] * shared + turns


def _bias(group: AttentionGroup, layer: AttentionLayer) -> Tensor:
    """Returns the biases [batch, kv_heads, rows, keys]."""
    assert layer.bias is not None
    keys = group.first_keys + torch.arange(group.keys, device=group.positions.device)
    columns = layer.bias.columns(group.positions[..., None], keys[:, None])
    table = layer.bias.table.to(columns.device)
    return table[_row_heads(group, layer)[..., None], columns[:, None]]


def _gathered(cache: Tensor, group: AttentionGroup, dtype: torch.dtype) -> Tensor:
    """Returns the group's pages as [batch, kv_heads, keys, dim]; a view of the cache where possible."""
    count = group.keys // PAGE_SIZE
    first = group.first_page
    if first is not None and first + count <= len(cache):
        pages = cache[first : first + count]
    else:
        pages = cache.index_select(0, group.pages)
    keys = pages.view(group.batch, group.keys, cache.shape[2], cache.shape[3])
    return restored(keys, dtype).transpose(1, 2)
