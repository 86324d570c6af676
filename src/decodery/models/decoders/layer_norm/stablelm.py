"""Defines StableLM 1 and 2: a gated MLP, LayerNorm, and a quarter of each head rotates.

Bellagente et al., Stable LM 2 1.6B Technical Report (2024). The 12B model has attention and MLP side by side,
and normalises queries and keys with a weight for each head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import (
    FLAG,
    NO_KEY,
    ConfigTable,
    Setting,
    exists,
    is_missing,
    quotient,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    FIELDS,
    MATRICES,
    PartialRotaryConfig,
    if_missing,
    layer_norm_eps,
)
from decodery.models.decoders.llama import SILU
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import ParallelBlock, PreNormBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.rope_config import PARTIAL, RopeField, RotatedSize
from decodery.weights.names import stack


@dataclass(frozen=True)
class StableLMConfig(PartialRotaryConfig):
    """Holds the sizes and values of one StableLM."""

    qkv_bias: bool = False
    head_norms: bool = False
    parallel: bool = False


class StableLM(Decoder):
    """Defines a StableLM over the given kernels; its parameters are not initialised."""

    def __init__(self, config: StableLMConfig, kernels: Kernels) -> None:
        blocks = [_block(config, layer, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        super().__init__(config, kernels, blocks, norm, rotary=config.rotary(kernels))


def _block(config: StableLMConfig, layer: int, kernels: Kernels) -> nn.Module:
    width, eps = config.width, config.norm_eps
    attention = Attention(
        config.attention(layer),
        width,
        kernels,
        bias=config.qkv_bias,
        out_bias=False,
        head_norms=_head_norms(config, kernels) if config.head_norms else None,
    )
    norm = LayerNorm(width, eps, kernels)
    mlp = GatedMLP(width, config.mlp_width, kernels)
    if config.parallel:
        return ParallelBlock(norm, attention, mlp)
    return PreNormBlock(norm, attention, LayerNorm(width, eps, kernels), mlp)


def _head_norms(config: StableLMConfig, kernels: Kernels) -> tuple[nn.Module, nn.Module]:
    size, eps = config.head_dim, config.norm_eps
    return (
        LayerNorm(size, eps, kernels, bias=False, heads=config.heads),
        LayerNorm(size, eps, kernels, bias=False, heads=config.kv_heads),
    )


def _hub_names(config: StableLMConfig) -> Names:
    """Returns the names on the hub, where the weight of each head's norm is one tensor."""
    norms = [
        stack(
            f"layers.{{i}}.attn.{part}_norm.weight",
            [f"model.layers.{{i}}.self_attn.{part}_layernorm.norms.{{e}}.weight"],
            heads,
        )
        for part, heads in (("q", config.heads), ("k", config.kv_heads))
    ]
    return decoder_names(HUB, config, further=norms)


STABLELM = Family(
    name="stablelm",
    config=ConfigTable(
        StableLMConfig,
        fields={
            **FIELDS,
            **if_missing(context=4096, heads=32),
            "head_dim": Setting(NO_KEY, default=quotient("width", "heads")),
            "norm_eps": layer_norm_eps("layer_norm_eps", "norm_eps"),
            "rotated": RotatedSize(0.25, (PARTIAL, "rope_pct")),
            "rope": RopeField(rotated="rotated"),
            "qkv_bias": Setting(
                FLAG, "use_qkv_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "head_norms": Setting(
                FLAG, "qk_layernorm", default=False, gguf_default=exists("blk.0.attn_q_norm.weight")
            ),
            # GGUF files have a key for it that does not tell: their writer's default is another one.
            "parallel": Setting(
                FLAG,
                "use_parallel_residual",
                default=False,
                gguf_default=is_missing("blk.0.ffn_norm.weight"),
            ),
        },
        fixed=(SILU,),
        matrices=MATRICES,
    ),
    build={"causal": StableLM},
    hub_names=_hub_names,
    gguf_names=lambda config: decoder_names(GGUF, config),
    gguf="stablelm",
)
