"""Defines Phi 1, 1.5 and 2: attention and MLP read one normalised input, and half of each head rotates.

Gunasekar et al., Textbooks Are All You Need (2023); Li et al., phi-1.5 technical report (2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import FLAG, ConfigTable, Setting
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    ACTIVATIONS,
    FIELDS,
    MATRICES,
    SAME_VALUE_SIZE,
    PartialRotaryConfig,
    layer_norm_eps,
)
from decodery.models.decoders.names import GGUF, GGUF_FUSED, HUB, decoder_names, either
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import ParallelBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.rope_config import RopeField, RotatedSize


@dataclass(frozen=True)
class PhiConfig(PartialRotaryConfig):
    """Holds the sizes and values of one Phi."""

    activation: Activation = "gelu_tanh"
    head_norms: bool = False


class Phi(Decoder):
    """Defines a Phi over the given kernels; its parameters are not initialised."""

    def __init__(self, config: PhiConfig, kernels: Kernels) -> None:
        blocks = [_block(config, layer, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        super().__init__(config, kernels, blocks, norm, rotary=config.rotary(kernels), head_bias=True)


def _block(config: PhiConfig, layer: int, kernels: Kernels) -> nn.Module:
    width, eps, size = config.width, config.norm_eps, config.head_dim
    head_norms = (LayerNorm(size, eps, kernels), LayerNorm(size, eps, kernels)) if config.head_norms else None
    return ParallelBlock(
        LayerNorm(width, eps, kernels),
        Attention(config.attention(layer), width, kernels, bias=True, head_norms=head_norms),
        PlainMLP(width, config.mlp_width, config.activation, kernels),
    )


PHI_HUB = replace(
    HUB,
    norms={
        "attn_norm": "input_layernorm",
        "attn.q_norm": "self_attn.q_layernorm",
        "attn.k_norm": "self_attn.k_layernorm",
    },
    out="self_attn.dense",
    gate_up=(),
    up="mlp.fc1",
    down="mlp.fc2",
    norm="model.final_layernorm",
)


def _gguf_names(config: PhiConfig) -> Names:
    return either(decoder_names(GGUF, config), decoder_names(GGUF_FUSED, config))


PHI = Family(
    name="phi",
    config=ConfigTable(
        PhiConfig,
        fields={
            **FIELDS,
            "norm_eps": layer_norm_eps("layer_norm_eps"),
            "rotated": RotatedSize(0.5),
            "rope": RopeField(rotated="rotated"),
            "activation": Setting(ACTIVATIONS, "hidden_act", default="gelu_tanh"),
            "head_norms": Setting(FLAG, "qk_layernorm", default=False),
        },
        fixed=(SAME_VALUE_SIZE,),
        matrices=MATRICES,
    ),
    build={"causal": Phi},
    hub_names=lambda config: decoder_names(PHI_HUB, config),
    gguf_names=_gguf_names,
    gguf="phi2",
)
