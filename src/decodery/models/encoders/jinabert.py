"""Defines JinaBERT 2: a BERT whose scores fall with the distance of two tokens, with a gated MLP.

Günther et al., Jina Embeddings 2: 8192-Token General-Purpose Text Embeddings (2023).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from decodery.kernels.contract import Kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.config_reader import COUNT, NO_KEY, ConfigTable, Fixed, Setting, choice
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import BACKBONE, GGUF_BACKBONE, IGNORED, OUTPUTS, Bert
from decodery.models.encoders.encoder_config import MATRICES, EncoderConfig, fields
from decodery.models.encoders.names import Modules, encoder_names, gguf_encoder_names
from decodery.models.layers.alibi import alibi_of_both_sides
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import LayerNorm

HEADS: tuple[Head, ...] = ("states", "masked_lm")


class JinaBert(Bert):
    """Defines a JinaBERT over the given kernels; its parameters are not initialised."""

    masked_activation = "gelu"

    def __init__(self, config: EncoderConfig, kernels: Kernels, head: Head) -> None:
        bias = alibi_of_both_sides(config.heads, config.context_length)
        super().__init__(
            config, kernels, head, [_layer(config, i, bias, kernels) for i in range(config.layers)]
        )


def _layer(config: EncoderConfig, layer: int, bias: RelativeBias, kernels: Kernels) -> PostNormBlock:
    width, eps = config.width, config.norm_eps
    return PostNormBlock(
        Attention(replace(config.attention(layer), bias=bias), width, kernels, bias=True),
        LayerNorm(width, eps, kernels),
        GatedMLP(width, config.mlp_width, kernels, activation=config.activation, down_bias=True),
        LayerNorm(width, eps, kernels),
    )


LAYER = "encoder.layer.{i}.mlp."
HUB: Modules = {
    **{ours: stored for ours, stored in BACKBONE.items() if ours not in ("position", "layers.{i}.mlp.up")},
    # The half to which the activation belongs is the first one.
    "layers.{i}.mlp.gate_up": f"{LAYER}gated_layers",
    "layers.{i}.mlp.down": f"{LAYER}wo",
    "layers.{i}.mlp_norm": f"{LAYER}layernorm",
}
GGUF: Modules = {
    **{ours: stored for ours, stored in GGUF_BACKBONE.items() if ours != "layers.{i}.mlp.up"},
    "layers.{i}.mlp.gate_up": ("blk.{i}.ffn_gate", "blk.{i}.ffn_up"),
}


def hub_names(config: EncoderConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names(
        "bert.",
        HUB,
        OUTPUTS,
        masked_bias="cls.predictions.bias",
        ignored=IGNORED,
        tied=config.tied_head,
    )


GATES = choice({"geglu": "gelu", "reglu": "relu"})
JINABERT = Family(
    name="jinabert",
    config=ConfigTable(
        EncoderConfig,
        fields=fields(
            context_length=Setting(COUNT, "max_position_embeddings", "context_length", default=8192),
            positions=Setting(NO_KEY, default=0),
            activation=Setting(GATES, "feed_forward_type", default="gelu"),
        ),
        fixed=(
            Fixed(hub="position_embedding_type", value="alibi", wanted="'alibi': it has no other positions"),
            Fixed(
                gguf="attention.max_alibi_bias", accepted=(8.0,), wanted="8: other slopes are not supported"
            ),
        ),
        matrices=MATRICES,
    ),
    build={head: partial(JinaBert, head=head) for head in HEADS},
    hub_names=hub_names,
    gguf_names=lambda config: gguf_encoder_names(GGUF),
    gguf="jina-bert-v2",
)
