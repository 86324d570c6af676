"""Defines StarCoder: GPT-2 with one head of keys and values; and StarCoder 2, with rotary positions.

Li et al., StarCoder: May the Source Be with You! (2023); Lozhkov et al., StarCoder 2 and The Stack v2 (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import (
    FLAG,
    NO_KEY,
    ConfigTable,
    Field,
    Setting,
    Source,
    exists,
    value_of,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    ACTIVATIONS,
    FIELDS,
    MATRICES,
    SAME_VALUE_SIZE,
    PartialRotaryConfig,
    if_missing,
    layer_norm_eps,
    tied_head,
)
from decodery.models.decoders.layer_norm.gpt2 import (
    CONV1D,
    GPT2,
    GPT2_FIELDS,
    NO_CROSS_ATTENTION,
    SCALES,
    GPT2Config,
    gguf_names,
)
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField, Windows
from decodery.weights.transforms import grouped


@dataclass(frozen=True)
class MultiQuery(Field):
    """Says that the number of heads of keys and values is 1 or that of all heads, as `multi_query` says."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.head_count_kv",) if gguf else ("multi_query",)

    def read(self, source: Source, name: str) -> int:
        heads: int = source["heads"]
        if not source.is_gguf:
            return 1 if source.keys.flag("multi_query", True) else heads
        found = source.keys.count(source.key("attention.head_count_kv"))
        if found not in (1, heads):
            raise source.error(name, f"1 or the number of heads ({heads})")
        return found

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {"attention.head_count_kv": value} if gguf else {"multi_query": value == 1}


def _bigcode_names(config: GPT2Config) -> Names:
    by_head = None if config.kv_heads == 1 else grouped(config.heads, config.heads)
    return decoder_names(CONV1D, config, qkv=[by_head])


BIGCODE = Family(
    name="gpt_bigcode",
    config=ConfigTable(
        GPT2Config,
        fields={**GPT2_FIELDS, "kv_heads": MultiQuery(), "scaled": SCALES["scaled"]},
        fixed=(NO_CROSS_ATTENTION,),
        matrices=MATRICES,
    ),
    build={"causal": GPT2},
    hub_names=_bigcode_names,
    gguf_names=gguf_names,
    gguf="starcoder",
)


@dataclass(frozen=True)
class StarCoder2Config(PartialRotaryConfig):
    """Holds the sizes and values of one StarCoder 2; `windows` is described by `WindowField`."""

    activation: Activation = "gelu_tanh"
    bias: bool = True
    windows: Windows = ()


class StarCoder2(Decoder):
    """Defines a StarCoder 2 over the given kernels; its parameters are not initialised."""

    def __init__(self, config: StarCoder2Config, kernels: Kernels) -> None:
        blocks = [_block(config, layer, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        super().__init__(config, kernels, blocks, norm, rotary=config.rotary(kernels))


def _block(config: StarCoder2Config, layer: int, kernels: Kernels) -> nn.Module:
    width, eps = config.width, config.norm_eps
    window = config.windows[layer] if config.windows else None
    return PreNormBlock(
        LayerNorm(width, eps, kernels),
        Attention(config.attention(layer, window), width, kernels, bias=config.bias),
        LayerNorm(width, eps, kernels),
        PlainMLP(width, config.mlp_width, config.activation, kernels, bias=config.bias),
    )


STARCODER2_HUB = replace(HUB, gate_up=(), up="mlp.c_fc", down="mlp.c_proj")
STARCODER2 = Family(
    name="starcoder2",
    config=ConfigTable(
        StarCoder2Config,
        fields={
            **FIELDS,
            **if_missing(context=4096, heads=2),
            "norm_eps": layer_norm_eps("norm_epsilon"),
            "rotated": Setting(NO_KEY, default=value_of("head_dim")),
            "rope": RopeField(rotated="rotated"),
            "activation": Setting(ACTIVATIONS, "hidden_act", default="gelu_tanh"),
            "bias": Setting(FLAG, "use_bias", default=True, gguf_default=exists("blk.0.attn_q.bias")),
            "windows": WindowField(named=False),
            "tied_head": tied_head(True),
        },
        fixed=(SAME_VALUE_SIZE,),
        matrices=MATRICES,
    ),
    build={"causal": StarCoder2},
    hub_names=lambda config: decoder_names(STARCODER2_HUB, config),
    gguf_names=lambda config: decoder_names(GGUF, config),
    gguf="starcoder2",
)
