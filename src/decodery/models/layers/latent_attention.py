"""Defines multi-head latent attention: keys and values are computed from a short vector of each token."""

from __future__ import annotations

from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.layers.attention import Angles, Attend
from decodery.models.layers.linear import Linear
from decodery.models.layers.norm import RMSNorm

EPS = 1e-6
"""Is the epsilon of the inner norms, whatever that of the others is."""


class LatentAttention(nn.Module):
    """Computes attention whose heads have `rotated` elements for positions before the other ones.

    Keys and values are linear maps of a normalised vector of `kv_rank` elements. The rotated elements of a
    key come from the token itself, and all heads share them. With `q_rank`, queries are such maps, too.
    DeepSeek-AI, DeepSeek-V2 (2024), section 2.1. The cache holds whole keys and values.
    """

    def __init__(
        self,
        layer: AttentionLayer,
        width: int,
        rotated: int,
        kv_rank: int,
        q_rank: int | None,
        kernels: Kernels,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        assert layer.heads == layer.kv_heads
        self.layer = layer
        self.kernels = kernels
        self.rotated = rotated
        self.kv_rank = kv_rank
        self.q_low = None if q_rank is None else Linear(width, q_rank, kernels, bias=bias)
        self.q_norm = None if q_rank is None else RMSNorm(q_rank, EPS, kernels)
        self.q = Linear(q_rank or width, layer.heads * layer.k_width, kernels)
        self.kv_low = Linear(width, kv_rank + rotated, kernels, bias=bias)
        self.kv_norm = RMSNorm(kv_rank, EPS, kernels)
        plain = layer.k_width - rotated
        self.kv = Linear(kv_rank, layer.heads * (plain + layer.v_width), kernels)
        self.out = Linear(layer.heads * layer.v_width, width, kernels, bias=bias)

    def forward(
        self, x: Tensor, angles: Angles | None, attend: Attend, residual: Tensor | None = None
    ) -> Tensor:
        """Computes the attention of states x [..., width], plus `residual`."""
        assert angles is not None
        heads, plain = self.layer.heads, self.layer.k_width - self.rotated
        low = x if self.q_low is None or self.q_norm is None else self.q_norm(self.q_low(x))
        q = self.kernels.rotary(self.q(low).unflatten(-1, (heads, -1)), angles.cos, angles.sin)
        latent, shared = self.kv_low(x).split_with_sizes((self.kv_rank, self.rotated), -1)
        turned = self.kernels.rotary(shared.unsqueeze(-2), angles.cos, angles.sin)
        keys, values = self.kv(self.kv_norm(latent)).split_with_sizes(
            (heads * plain, heads * self.layer.v_width), -1
        )
        k = self.kernels.joined((turned, keys.unflatten(-1, (heads, plain))))
        v = values.unflatten(-1, (heads, self.layer.v_width))
        out: Tensor = self.out(attend(self.layer, q, k, v), residual)
        return out
