"""Defines Llama: a pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.

Touvron et al., LLaMA (2023); Llama Team, The Llama 3 Herd of Models (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import FLAG, POSITIVE, REQUIRED, ConfigTable, Fixed, Setting, exists
from decodery.models.contract import Family
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import FIELDS, MATRICES, SAME_VALUE_SIZE, DecoderConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.attention import Angles, Attend, Attention
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import RMSNorm
from decodery.models.layers.rope import DynamicRope, Rope, Rotary
from decodery.models.rope_config import RopeField
from decodery.weights.transforms import permuted


@dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    """Holds the sizes and values of one Llama."""

    norm_eps: float
    rope: Rope
    attention_bias: bool
    mlp_bias: bool

    @property
    def extensible(self) -> bool:
        return isinstance(self.rope, DynamicRope)


CONFIG = ConfigTable(
    LlamaConfig,
    fields={
        **FIELDS,
        "norm_eps": Setting(
            POSITIVE,
            "rms_norm_eps",
            "attention.layer_norm_rms_epsilon",
            default=1e-6,
            gguf_default=REQUIRED,
        ),
        "rope": RopeField(),
        "attention_bias": Setting(
            FLAG, "attention_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
        ),
        "mlp_bias": Setting(FLAG, "mlp_bias", default=False, gguf_default=exists("blk.0.ffn_gate.bias")),
    },
    fixed=(
        SAME_VALUE_SIZE,
        Fixed(hub="hidden_act", value="silu", accepted=("swish",), wanted="'silu'"),
        Fixed(gguf="expert_count", accepted=(0,), wanted="0: models with experts are not supported yet"),
    ),
    matrices=MATRICES,
)


class Block(nn.Module):
    """Computes one layer: attention, then the MLP, each on the normalised residual stream."""

    def __init__(self, config: LlamaConfig, layer: int, kernels: Kernels) -> None:
        super().__init__()
        width, dim = config.width, config.head_dim
        attention = AttentionLayer(layer, config.heads, config.kv_heads, dim, dim, 1 / math.sqrt(dim))
        self.attn_norm = RMSNorm(width, config.norm_eps, kernels)
        self.attn = Attention(attention, width, kernels, bias=config.attention_bias)
        self.mlp_norm = RMSNorm(width, config.norm_eps, kernels)
        self.mlp = GatedMLP(width, config.mlp_width, kernels, bias=config.mlp_bias)

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        x = self.attn(self.attn_norm(x), angles, attend, residual=x)
        out: Tensor = self.mlp(self.mlp_norm(x), residual=x)
        return out


class Llama(Decoder):
    """Defines a Llama over the given kernels; its parameters are not initialised."""

    def __init__(self, config: LlamaConfig, kernels: Kernels) -> None:
        blocks = [Block(config, layer, kernels) for layer in range(config.layers)]
        super().__init__(config, kernels, blocks, RMSNorm(config.width, config.norm_eps, kernels))
        self.rotary = Rotary(config.rope, config.head_dim, config.context_length, kernels)

    def angles(self, positions: Tensor, length: int | None) -> Angles:
        return self.rotary(positions, length)


FAMILY = Family(
    name="llama",
    config=CONFIG,
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=lambda config: decoder_names(
        GGUF, config, qkv=(permuted(config.heads), permuted(config.kv_heads), None)
    ),
)
