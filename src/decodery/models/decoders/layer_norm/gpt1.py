"""Defines GPT-1: GPT-2 whose norms follow attention and MLP.

Radford et al., Improving Language Understanding by Generative Pre-Training (2018).
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import NO_KEY, ConfigTable, Setting, choice
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, context_length, times_width
from decodery.models.decoders.layer_norm.gpt2 import CONTEXT, CONV1D, GPT2, GPT2_FIELDS, GPT2Config
from decodery.models.decoders.names import decoder_names, either, without_prefix
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.weights.transforms import TRANSPOSED


class GPT1(GPT2):
    """Defines a GPT-1 over the given kernels; its parameters are not initialised."""

    def block(self, config: GPT2Config, layer: int, kernels: Kernels) -> nn.Module:
        width = config.width
        attention = Attention(config.attention(layer), width, kernels, bias=True)
        mlp = PlainMLP(width, config.mlp_width, config.activation, kernels)
        attn_norm, mlp_norm = (LayerNorm(width, config.norm_eps, kernels) for _ in range(2))
        return PostNormBlock(attention, attn_norm, mlp, mlp_norm)

    def last_norm(self, config: GPT2Config, kernels: Kernels) -> nn.Module:
        return nn.Identity()


HUB = replace(
    CONV1D,
    embedding="transformer.tokens_embed",
    positions="transformer.positions_embed",
    # Buffers of older versions.
    derived=("transformer.h.*.attn.bias", "transformer.position_ids"),
)


def _hub_names(config: GPT2Config) -> Names:
    spellings = HUB, without_prefix(HUB, "transformer.")
    return either(*(decoder_names(each, config, linear=TRANSPOSED) for each in spellings))


# Here "gelu" is the approximation with tanh.
ACTIVATIONS = choice({"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"})
POSITIONS = context_length(512, *CONTEXT)
GPT1_FAMILY = Family(
    name="openai-gpt",
    config=ConfigTable(
        GPT2Config,
        fields={
            **GPT2_FIELDS,
            "mlp_width": Setting(NO_KEY, default=times_width(4)),
            "context_length": POSITIONS,
            "positions": POSITIONS,
            "activation": Setting(ACTIVATIONS, "afn", default="gelu_tanh"),
        },
        matrices=MATRICES,
    ),
    build={"causal": GPT1},
    hub_names=_hub_names,
)
