"""Defines MPT: a pre-norm decoder with ALiBi or learned positions, and no biases.

MosaicML NLP Team, Introducing MPT-7B (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.config_reader import COUNT, POSITIVE, ConfigTable, Field, Fixed, Setting, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    MATRICES,
    DecoderConfig,
    context_length,
    layer_norm_eps,
)
from decodery.models.decoders.layer_norm.gpt2 import GPT2_FIELDS
from decodery.models.decoders.names import GGUF_FUSED, Spelling, decoder_names
from decodery.models.layers.alibi import alibi
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm


@dataclass(frozen=True)
class MPTConfig(DecoderConfig):
    """Holds the sizes and values of one MPT.

    `alibi` is the largest slope's exponent, None for learned positions. `clip` is the largest magnitude of
    queries, keys and values. `scale` None is one over the root of
    a head's size. `logit_scale` multiplies the scores of tokens.
    """

    positions: int
    norm_eps: float
    alibi: float | None = 8.0
    clip: float | None = None
    scale: float | None = None
    logit_scale: float | None = None

    @property
    def extensible(self) -> bool:
        return self.alibi is not None

    def attention(self, layer: int, bias: RelativeBias | None) -> AttentionLayer:
        """Returns the attention of a layer."""
        size = self.head_dim
        scale = size**-0.5 if self.scale is None else self.scale
        return AttentionLayer(layer, self.heads, self.kv_heads, size, size, scale, bias=bias)


class MPT(Decoder):
    """Defines an MPT over the given kernels; its parameters are not initialised."""

    config: MPTConfig

    def __init__(self, config: MPTConfig, kernels: Kernels) -> None:
        width, eps, largest = config.width, config.norm_eps, config.alibi
        bias = None if largest is None else alibi(config.heads, config.context_length, largest=largest)
        blocks = [
            PreNormBlock(
                LayerNorm(width, eps, kernels, bias=False),
                Attention(config.attention(layer, bias), width, kernels, clip=config.clip),
                LayerNorm(width, eps, kernels, bias=False),
                PlainMLP(width, config.mlp_width, "gelu", kernels, bias=False),
            )
            for layer in range(config.layers)
        ]
        super().__init__(config, kernels, blocks, LayerNorm(width, eps, kernels, bias=False))
        self.positions: nn.Module | None = None
        if largest is None:
            self.positions = Embedding(config.positions, width, kernels, multiplied=False)

    def first_states(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.positions is None else self.positions(positions, residual=x)

    def logits(self, hidden: Tensor) -> Tensor:
        scores, scale = super().logits(hidden), self.config.logit_scale
        return scores if scale is None else scores * scale


@dataclass(frozen=True)
class AlibiField(Field):
    """Says whether a model has ALiBi, and its largest exponent, or learned positions."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.max_alibi_bias",) if gguf else ("attn_config.alibi", "attn_config.alibi_bias_max")

    def read(self, source: Source, name: str) -> float | None:
        if source.is_gguf:
            key = source.key("attention.max_alibi_bias")
            return source.keys.positive(key) if source.keys.values.get(key) else None
        attention = source.keys.section("attn_config")
        if attention.flag("alibi", True):
            return attention.positive("alibi_bias_max", 8.0)
        if not source.keys.flag("learned_pos_emb", True):
            raise source.keys.error("learned_pos_emb", "true, since alibi is false")
        return None

    def write(self, value: float | None, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {"attention.max_alibi_bias": value or 0.0}
        if value is None:
            return {"attn_config.alibi": False}
        # Others accept whole numbers only.
        largest = int(value) if value.is_integer() else value
        return {"attn_config.alibi": True, "attn_config.alibi_bias_max": largest}


@dataclass(frozen=True)
class ExpansionRatio(Field):
    """Says that the width of the MLP is stored as its quotient by the width."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("feed_forward_length",) if gguf else ("expansion_ratio",)

    def read(self, source: Source, name: str) -> int:
        if source.is_gguf:
            return source.keys.count(source.key("feed_forward_length"))
        width: int = source["width"]
        return width * source.keys.count("expansion_ratio", 4)

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {"feed_forward_length": value} if gguf else {"expansion_ratio": value // config.width}


HUB = Spelling(
    embedding="transformer.wte",
    positions="transformer.wpe",
    layer="transformer.blocks.{i}.",
    norms={"attn_norm": "norm_1", "mlp_norm": "norm_2"},
    qkv=("attn.Wqkv",),
    out="attn.out_proj",
    gate_up=(),
    up="ffn.up_proj",
    down="ffn.down_proj",
    norm="transformer.norm_f",
    head="lm_head",
)
POSITIONS = context_length(2048, "max_seq_len")
MPT_FAMILY = Family(
    name="mpt",
    config=ConfigTable(
        MPTConfig,
        fields={
            **{name: field for name, field in GPT2_FIELDS.items() if name != "activation"},
            "width": Setting(COUNT, "d_model", "embedding_length"),
            "layers": Setting(COUNT, "n_layers", "block_count"),
            "heads": Setting(COUNT, "n_heads", "attention.head_count"),
            "mlp_width": ExpansionRatio(),
            "context_length": POSITIONS,
            "positions": POSITIONS,
            "norm_eps": layer_norm_eps("layer_norm_epsilon"),
            "alibi": AlibiField(),
            # Files have null or 0 where nothing is clipped.
            "clip": Setting(
                POSITIVE,
                "attn_config.clip_qkv",
                "attention.clamp_kqv",
                default=None,
                none=(None, 0.0, 0),
            ),
            "scale": Setting(POSITIVE, "attn_config.softmax_scale", default=None),
            "logit_scale": Setting(POSITIVE, "logit_scale", default=None),
        },
        fixed=(
            Fixed(hub="no_bias", value=True, wanted="true: biases are not supported for this family"),
            Fixed(
                hub="norm_type",
                value="low_precision_layernorm",
                accepted=("layernorm",),
                wanted="'low_precision_layernorm' or 'layernorm'",
            ),
            Fixed(hub="attn_config.attn_type", value="multihead_attention", wanted="'{value}'"),
            Fixed(hub="attn_config.prefix_lm", value=False, wanted="false"),
            Fixed(hub="attn_config.qk_ln", value=False, wanted="false: queries and keys have no norms"),
            Fixed(hub="attn_config.rope", accepted=(False,), wanted="false: this family does not rotate"),
            Fixed(
                gguf="attention.head_count_kv",
                value=lambda config: config.heads,
                wanted="the number of heads ({value})",
            ),
        ),
        matrices=MATRICES,
    ),
    build={"causal": MPT},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=lambda config: decoder_names(replace(GGUF_FUSED, positions="position_embd"), config),
    gguf="mpt",
)
