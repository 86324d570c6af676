"""Defines grouped-query attention, with dense and with paged keys and values."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from decodery.kernels.cache import PagedCache
from decodery.kernels.contract import Kernels, Plan
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.layers.linear import Linear


class Angles(NamedTuple):
    """Holds the angles for `Kernels.rotary`, [..., head_dim] in float32, at the positions of one forward
    pass.
    """

    cos: Tensor
    sin: Tensor


class Attend(Protocol):
    """Computes softmax attention of one layer's queries; the scores are scaled by `1 / sqrt(head_dim)`.

    q [..., heads, head_dim], k and v [..., kv_heads, head_dim], result [..., heads * head_dim]. `bias` is
    added to the scaled scores.
    """

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, bias: RelativeBias | None = None
    ) -> Tensor: ...


class DenseAttend:
    """Computes causal attention within whole sequences [B, S, ...], for training and scoring; differentiable.

    `keep` [B, S], where given, is False at padding, which no other position sees.
    """

    def __init__(self, kernels: Kernels, keep: Tensor | None = None) -> None:
        self.kernels = kernels
        self.hidden = None if keep is None else _hidden_keys(keep)

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, bias: RelativeBias | None = None
    ) -> Tensor:
        scale = 1 / math.sqrt(q.shape[-1])
        if self.hidden is None and bias is None:
            return self.kernels.attention(q, k, v, None, scale)
        hidden = _hidden_keys(q.new_ones(1, q.shape[1])) if self.hidden is None else self.hidden
        mask = q.new_zeros(()) if bias is None else bias.scores(q.shape[1])
        return self.kernels.attention(q, k, v, mask.masked_fill(hidden, -math.inf), scale)


def _hidden_keys(keep: Tensor) -> Tensor:
    """Returns the keys that a query must not see: [B, 1, S, S].

    A query always sees itself, so that padding has a finite result.
    """
    length = keep.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=keep.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=keep.device)
    return ~(causal & (keep.bool()[:, None, :] | itself))[:, None]


class PagedAttend:
    """Computes attention of the ragged token batch [tokens, ...] of one step over a paged cache.

    It runs under `torch.inference_mode` or `torch.no_grad`, since it is not differentiable. Each layer first
    writes the step's keys and values into the slots of the plan, in place. Rows beyond the plan's tokens are
    padding: they are not written, and their result is 0.
    """

    def __init__(self, kernels: Kernels, cache: PagedCache, plan: Plan) -> None:
        self.kernels = kernels
        self.plan = plan
        self.layers = cache.layers

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, bias: RelativeBias | None = None
    ) -> Tensor:
        keys, values = self.layers[layer]
        self.kernels.write_kv(keys, values, self.plan, k, v)
        return self.kernels.paged_attention(q, keys, values, self.plan, 1 / math.sqrt(q.shape[-1]), bias)


class Attention(nn.Module):
    """Computes grouped-query self-attention with rotary positions; q, k and v are one linear map.

    Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models (2023).
    """

    def __init__(
        self,
        layer: int,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        kernels: Kernels,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.kernels = kernels
        self.qkv = Linear(width, (heads + 2 * kv_heads) * head_dim, kernels, bias=bias)
        self.out = Linear(heads * head_dim, width, kernels, bias=bias)

    def forward(self, x: Tensor, angles: Angles, attend: Attend, residual: Tensor | None = None) -> Tensor:
        heads, kv_heads = self.heads, self.kv_heads
        qkv = self.qkv(x).view(*x.shape[:-1], heads + 2 * kv_heads, self.head_dim)
        qk, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), -2)
        q, k = self.kernels.rotary(qk, *angles).split_with_sizes((heads, kv_heads), -2)
        out: Tensor = self.out(attend(self.layer, q, k, v), residual)
        return out
