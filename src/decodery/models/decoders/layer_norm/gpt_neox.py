"""Defines GPT-NeoX and Pythia: attention and MLP side by side, and a part of each head rotates.

Black et al., GPT-NeoX-20B (2022); Biderman et al., Pythia (2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import FLAG, NO_KEY, ConfigTable, Setting, quotient
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    ACTIVATIONS,
    FIELDS,
    MATRICES,
    ONE_KV_HEAD_EACH,
    PartialRotaryConfig,
    layer_norm_eps,
)
from decodery.models.decoders.names import GGUF_FUSED, Spelling, decoder_names, either
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import ParallelBlock, PreNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.rope_config import RopeField, RotatedSize
from decodery.weights.transforms import grouped


@dataclass(frozen=True)
class GPTNeoXConfig(PartialRotaryConfig):
    """Holds the sizes and values of one GPT-NeoX."""

    activation: Activation = "gelu"
    attention_bias: bool = True
    parallel: bool = True


class GPTNeoX(Decoder):
    """Defines a GPT-NeoX over the given kernels; its parameters are not initialised."""

    def __init__(self, config: GPTNeoXConfig, kernels: Kernels) -> None:
        blocks = [_block(config, layer, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        super().__init__(config, kernels, blocks, norm, rotary=config.rotary(kernels))


def _block(config: GPTNeoXConfig, layer: int, kernels: Kernels) -> nn.Module:
    width, eps = config.width, config.norm_eps
    attention = Attention(config.attention(layer), width, kernels, bias=config.attention_bias)
    mlp = PlainMLP(width, config.mlp_width, config.activation, kernels)
    attn_norm, mlp_norm = (LayerNorm(width, eps, kernels) for _ in range(2))
    if config.parallel:
        return ParallelBlock(attn_norm, attention, mlp, mlp_norm)
    return PreNormBlock(attn_norm, attention, mlp_norm, mlp)


HUB = Spelling(
    embedding="gpt_neox.embed_in",
    layer="gpt_neox.layers.{i}.",
    norms={"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    qkv=("attention.query_key_value",),
    out="attention.dense",
    gate_up=(),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norm="gpt_neox.final_layer_norm",
    head="embed_out",
    # Buffers of older versions.
    derived=(
        "gpt_neox.layers.*.attention.bias",
        "gpt_neox.layers.*.attention.masked_bias",
        "gpt_neox.layers.*.attention.rotary_emb.inv_freq",
    ),
)


def _hub_names(config: GPTNeoXConfig) -> Names:
    spellings = HUB, replace(HUB, head="lm_head")
    return either(
        *(decoder_names(each, config, qkv=[grouped(config.heads, config.heads)]) for each in spellings)
    )


GPT_NEOX = Family(
    name="gpt_neox",
    config=ConfigTable(
        GPTNeoXConfig,
        fields={
            **FIELDS,
            "kv_heads": ONE_KV_HEAD_EACH,
            "head_dim": Setting(NO_KEY, default=quotient("width", "heads")),
            "norm_eps": layer_norm_eps("layer_norm_eps"),
            "rotated": RotatedSize(0.25, ("rotary_pct",)),
            "rope": RopeField(rotated="rotated", theta="rotary_emb_base"),
            # llama.cpp has the approximation with tanh in all GGUF files, which is not what was trained.
            "activation": Setting(ACTIVATIONS, "hidden_act", default="gelu"),
            "attention_bias": Setting(FLAG, "attention_bias", default=True),
            "parallel": Setting(FLAG, "use_parallel_residual", "use_parallel_residual", default=True),
        },
        matrices=MATRICES,
    ),
    build={"causal": GPTNeoX},
    hub_names=_hub_names,
    gguf_names=lambda config: decoder_names(GGUF_FUSED, config),
    gguf="gptneox",
)
