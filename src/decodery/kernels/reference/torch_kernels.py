"""The torch backend: every kernel in its plainest form that is right, differentiable where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.contract import Activation
from decodery.kernels.kv_formats import restored, stored
from decodery.kernels.reference.attention_plan import AttentionGroup, AttentionPlan, plan_attention
from decodery.kernels.reference.onednn import Readable, pack, pack_readable
from decodery.kernels.relative_bias import RelativeBias
from decodery.kernels.threads import one_kernel_thread

Result = TypeVar("Result")

__all__ = [
    "activation",
    "angles",
    "attention",
    "cache_dtype",
    "capture",
    "embedding",
    "exclusive_threads",
    "gated",
    "gated_linear",
    "layer_norm",
    "linear",
    "pack",
    "pack_embedding",
    "pack_gated",
    "paged_attention",
    "plan_attention",
    "rms_norm",
    "rotary",
    "row_multiple",
    "takes_codes",
    "takes_page_strides",
    "write_kv",
]


def row_multiple(dtype: torch.dtype) -> int:
    """The number of rows that a token batch is padded to a multiple of.

    A float32 matrix product sums a row in one order when the number of rows is a multiple of 4, and in
    others for 1, 2, 3 or 5 rows: with this padding a row has the same bits in every batch. In bfloat16
    only a single row is summed in another order than two and more.
    """
    return 2 if dtype == torch.bfloat16 else 4


def cache_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of keys and values for activations of `dtype`: the same."""
    return dtype


def exclusive_threads() -> AbstractContextManager[None]:
    """One thread of the kernels over the vocabulary: torch's threads wait for the next operation."""
    return one_kernel_thread()


def takes_page_strides() -> bool:
    """No: where a layer's pages follow each other, a sequence's keys need not be copied."""
    return False


def capture(
    run: Callable[[], Result], rooms: BufferPool | None = None
) -> tuple[Result, Callable[[], None] | None]:
    """Run; torch's own operations cannot be replayed."""
    return run(), None


def linear(
    x: Tensor, weight: Tensor | Readable, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """`x @ weight.T + bias + residual`: x [..., in], weight [out, in] or packed, bias [out]."""
    product: Tensor
    if isinstance(weight, Readable):
        weight = weight.packed
    if weight.is_mkldnn:
        product = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    else:
        product = F.linear(x, weight, bias)
    return product if residual is None else residual + product


def takes_codes() -> bool:
    """No: weights are dequantised for torch."""
    return False


def pack_embedding(weight: Tensor, *, multiplied: bool) -> Tensor | Readable:
    """A weight for `embedding`, and for `linear` too where it is multiplied; held once."""
    return pack_readable(weight) if multiplied else weight


def embedding(ids: Tensor, weight: Tensor | Readable) -> Tensor:
    """The rows of weight [vocabulary, width] that ids [...] name: [..., width]."""
    return F.embedding(ids, weight) if isinstance(weight, Tensor) else weight.rows(ids)


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight + residual` over the last dimension, the norm in float32 at least.

    Zhang and Sennrich, Root Mean Square Layer Normalization (2019), equation 4.
    """
    width = x.shape[-1]
    if x.dtype == torch.bfloat16:
        # (x, -x) has mean 0 and the mean square of x as its variance: one fused kernel in place of seven.
        both = F.layer_norm(torch.cat((x, -x), -1), (2 * width,), torch.cat((weight, weight)), None, eps)
        normed = both.narrow(-1, 0, width)
    else:
        normed = F.rms_norm(x, (width,), weight, eps)
    return normed if residual is None else residual + normed


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, residual: Tensor | None = None
) -> Tensor:
    """`(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias + residual` over the last dimension.

    Ba, Kiros and Hinton, Layer Normalization (2016).
    """
    normed = F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    return normed if residual is None else residual + normed


def angles(positions: Tensor, frequencies: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., 2 * pairs] for `rotary`, of positions [...] times frequencies [pairs]."""
    turns = positions[..., None].float() * frequencies
    cos, sin = turns.cos() * magnitude, turns.sin() * magnitude
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [..., heads, dim] by angles, float32 inside: `x * cos + partner(x) * sin`.

    cos and sin are [..., dim]. Element i turns with element i + dim / 2, as hub checkpoints have it; the sine
    of the first half comes negated. Su et al., RoFormer (2021), section 3.4.2, equation 34.
    """
    wide = x.float() if x.dtype == torch.bfloat16 else x
    partner = wide.roll(x.shape[-1] // 2, -1)
    return (wide * cos.unsqueeze(-2) + partner * sin.unsqueeze(-2)).to(x.dtype)


# Not torch's functions of these names: the vector code and the scalar tail of silu and gelu differ in the
# last bit, and what falls into the tail depends on the number of rows and threads. The code of exp, erf and
# tanh is one for both.
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": torch.relu,
}
# How oneDNN applies them to its own sums.
_FUSED: dict[Activation, tuple[str, list[float], str]] = {
    "silu": ("swish", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
    "relu": ("relu", [], ""),
}


def activation(x: Tensor, name: Activation) -> Tensor:
    """The activation of each element of x [...]; float32 inside."""
    wide = x.float() if x.dtype == torch.bfloat16 else x
    return _ACTIVATIONS[name](wide).to(x.dtype)


def gated(gate_up: Tensor, activation: Activation = "silu") -> Tensor:
    """`activation(gate) * up` of [..., 2 * width], the gate first: [..., width]; float32 inside.

    Shazeer, GLU Variants Improve Transformer (2020), equation 6.
    """
    gate, up = gate_up.chunk(2, -1)
    gate = gate.float() if gate.dtype == torch.bfloat16 else gate
    return (_ACTIVATIONS[activation](gate) * up).to(gate_up.dtype)


def gated_linear(
    x: Tensor,
    weight: Tensor | tuple[Tensor, Tensor],
    bias: Tensor | None = None,
    activation: Activation = "silu",
) -> Tensor:
    """`gated(linear(x, weight, bias))`, where the weight may be what `pack_gated` made of it."""
    if isinstance(weight, Tensor):
        return gated(linear(x, weight, bias), activation)
    gate_bias, up_bias = (None, None) if bias is None else bias.chunk(2)
    gate = torch.ops.mkldnn._linear_pointwise(x, weight[0], gate_bias, *_FUSED[activation])
    product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, weight[1], up_bias, "mul")
    return product


def pack_gated(weight: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The weight [2 * width, in] of gate and up, packed apart, so that oneDNN applies silu and the product to
    its sums: a third less time for 512 rows in bfloat16. Where it cannot be packed, the weight itself."""
    gate, up = (pack(part) for part in weight.detach().chunk(2))
    return (gate, up) if gate.is_mkldnn else weight


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax attention over whole sequences: q [B, S, H, D], k and v [B, T, Hkv, D]; out [B, S, H * D].

    `mask` is added to the scores, [B or 1, H or 1, S, T] in q's dtype; None is causal, with S = T.
    """
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2).flatten(2)


def write_kv(cache_k: Tensor, cache_v: Tensor, plan: AttentionPlan, k: Tensor, v: Tensor) -> None:
    """Writes k and v [tokens, Hkv, D] into the plan's slots of the caches, as `stored` has them, in place.

    Slot s is offset s % 16 of page s // 16. k and v may have more rows than the plan has tokens: these are
    padding and are not written. What is not finite is written as 0, so that a sequence on which a model
    breaks down cannot reach others: attention multiplies masked values, whoever owns them, by 0.
    """
    for cache, values in ((cache_k, k), (cache_v, v)):
        new = values if len(values) == plan.tokens else values[: plan.tokens]
        flat = cache.view(-1, cache.shape[2], cache.shape[3])
        flat.index_copy_(0, plan.slots, stored(new, cache.dtype))


def paged_attention(
    q: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    plan: AttentionPlan,
    scale: float,
    bias: RelativeBias | None = None,
) -> Tensor:
    """Attention of ragged queries [tokens, H, D] over the pages that the plan names: [tokens, H * D].

    The caches hold the keys and values of these queries already. q may have more rows
    than the plan: these are padding, and their result is 0. A query's result has the same bits whatever
    stands beside it and however its sequence was cut into steps (`plan_attention` says why).
    """
    tokens, heads, dim = q.shape
    rows = (q if tokens == plan.tokens else q[: plan.tokens]).reshape(-1, dim)
    results = [_grouped(rows, cache_k, cache_v, group, scale, bias) for group in plan.groups]
    out = results[0] if len(results) == 1 else torch.cat(results)
    if plan.order is not None:
        out = out.index_select(0, plan.order)
    out = out.view(plan.tokens, heads * dim)
    return out if tokens == plan.tokens else F.pad(out, (0, 0, 0, tokens - plan.tokens))


def _grouped(
    rows: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    group: AttentionGroup,
    scale: float,
    bias: RelativeBias | None,
) -> Tensor:
    kv_heads, dim = cache_k.shape[2], rows.shape[1]
    if group.queries is not None:
        rows = rows.index_select(0, group.queries)
    q = rows.view(group.batch, kv_heads, group.rows, dim)
    k, v = _gathered(cache_k, group, q.dtype), _gathered(cache_v, group, q.dtype)
    mask = group.mask if bias is None else group.mask + _bias(group, bias, kv_heads)
    if group.batch * kv_heads == 1:
        # torch cuts a lone head's matrix products between its threads, which sums them in another order.
        q, k, v = (part.expand(2, -1, -1, -1) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)[:1].reshape(-1, dim)
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).reshape(-1, dim)


def _bias(group: AttentionGroup, bias: RelativeBias, kv_heads: int) -> Tensor:
    """[batch, kv_heads, rows, keys]; the heads of a K/V head take turns in its rows."""
    keys = torch.arange(group.keys, device=group.positions.device)
    columns = bias.columns(group.positions[..., None], keys)
    shared = len(bias.table) // kv_heads
    turns = torch.arange(group.rows, device=keys.device) % shared
    heads = torch.arange(kv_heads, device=keys.device)[:, None] * shared + turns
    return bias.table[heads[..., None], columns[:, None]]


def _gathered(cache: Tensor, group: AttentionGroup, dtype: torch.dtype) -> Tensor:
    """The group's pages as [batch, kv_heads, keys, dim]; a view of the cache where that is possible."""
    count = group.keys // PAGE_SIZE
    first = group.first_page
    if first is not None and first + count <= len(cache):
        pages = cache[first : first + count]
    else:
        pages = cache.index_select(0, group.pages)
    whole = pages.view(group.batch, group.keys, cache.shape[2], cache.shape[3])
    return restored(whole, dtype).transpose(1, 2)
