"""Defines Falcon: attention and MLP side by side, with few heads of keys; older ones have ALiBi.

Almazrouei et al., The Falcon Series of Open Language Models (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Activation, Kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.config_reader import COUNT, FLAG, NO_KEY, ConfigTable, Field, Setting, Source, quotient
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    ACTIVATIONS,
    FIELDS,
    MATRICES,
    DecoderConfig,
    layer_norm_eps,
    tied_head,
    times_width,
)
from decodery.models.decoders.names import GGUF_FUSED, Spelling, decoder_names, either, without_prefix
from decodery.models.layers.alibi import alibi
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import ParallelBlock, PreNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import DynamicRope, Rope, Rotary
from decodery.models.rope_config import RopeField
from decodery.weights.transforms import grouped


@dataclass(frozen=True)
class FalconConfig(DecoderConfig):
    """Holds the sizes and values of one Falcon.

    `grouped` is the architecture of Falcon 40B and later ones, which is always parallel. `norms` is the
    number of norms of a parallel layer. `alibi` replaces the rotary positions.
    """

    norm_eps: float
    rope: Rope
    grouped: bool = False
    parallel: bool = True
    norms: int = 1
    alibi: bool = False
    bias: bool = False
    activation: Activation = "gelu"

    @property
    def extensible(self) -> bool:
        return self.alibi or isinstance(self.rope, DynamicRope)

    @property
    def sequential(self) -> bool:
        """True if the MLP follows attention."""
        return not (self.parallel or self.grouped)


class Falcon(Decoder):
    """Defines a Falcon over the given kernels; its parameters are not initialised."""

    def __init__(self, config: FalconConfig, kernels: Kernels) -> None:
        size = config.head_dim
        # The biases are added before the scores are scaled.
        bias = alibi(config.heads, config.context_length, scale=size**-0.5) if config.alibi else None
        blocks = [_block(config, layer, bias, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        rotary = None if config.alibi else Rotary(config.rope, size, config.context_length, kernels)
        super().__init__(config, kernels, blocks, norm, rotary=rotary)


def _block(config: FalconConfig, index: int, bias: RelativeBias | None, kernels: Kernels) -> nn.Module:
    width, eps, size = config.width, config.norm_eps, config.head_dim
    layer = AttentionLayer(index, config.heads, config.kv_heads, size, size, size**-0.5, bias=bias)
    attention = Attention(layer, width, kernels, bias=config.bias)
    mlp = PlainMLP(width, config.mlp_width, config.activation, kernels, bias=config.bias)
    norm = LayerNorm(width, eps, kernels)
    if config.sequential:
        return PreNormBlock(norm, attention, LayerNorm(width, eps, kernels), mlp)
    return ParallelBlock(norm, attention, mlp, LayerNorm(width, eps, kernels) if config.norms == 2 else None)


@dataclass(frozen=True)
class KVHeads(Field):
    """Says how many heads of keys there are: 1 or that of all heads unless the architecture is grouped."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.head_count_kv",) if gguf else ("num_kv_heads", "n_head_kv")

    def read(self, source: Source, name: str) -> int:
        heads: int = source["heads"]
        if source.is_gguf:
            found = source.keys.count(source.key("attention.head_count_kv"), 1)
        elif _is_grouped(source):
            found = source.keys.count("num_kv_heads", source.keys.count("n_head_kv", heads))
        else:
            found = 1 if source.keys.flag("multi_query", True) else heads
        if heads % found:
            raise source.error(name, f"a divisor of {source.key_of('heads')} ({heads})")
        return found

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {"attention.head_count_kv": value}
        return {"num_kv_heads": value, "multi_query": value == 1}


def _is_grouped(source: Source) -> bool:
    """True if a config.json has the newer architecture; the first files tell by the number of heads only."""
    return source.keys.flag("new_decoder_architecture", source.keys.has("n_head_kv"))


def _gguf_grouped(source: Source) -> bool:
    return _gguf_norms(source) == 2 or source["kv_heads"] not in (1, source["heads"])


def _hub_norms(source: Source) -> int:
    return 2 if source["grouped"] else 1


def _gguf_norms(source: Source) -> int:
    return 2 if source.has_tensor("blk.0.attn_norm_2.weight") else 1


def _one_or_two(source: Source, name: str) -> None:
    if source[name] > 2:
        raise source.error(name, "1 or 2")


HUB = Spelling(
    embedding="transformer.word_embeddings",
    layer="transformer.h.{i}.",
    norms={},
    qkv=("self_attention.query_key_value",),
    out="self_attention.dense",
    gate_up=(),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norm="transformer.ln_f",
    head="lm_head",
)


def _hub_names(config: FalconConfig) -> Names:
    norms = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if not config.sequential and config.norms == 2:
        norms = {"attn_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    spelling = replace(HUB, norms=norms)
    by_group = [grouped(config.heads, config.kv_heads)]
    spellings = spelling, without_prefix(spelling, "transformer.")
    return either(*(decoder_names(each, config, qkv=by_group) for each in spellings))


def _gguf_names(config: FalconConfig) -> Names:
    norms = {"attn_norm": "attn_norm"}
    if config.norms == 2:
        norms = {"attn_norm": "attn_norm_2", "mlp_norm": "attn_norm"}
    return decoder_names(replace(GGUF_FUSED, norms=norms), config)


FALCON = Family(
    name="falcon",
    config=ConfigTable(
        FalconConfig,
        fields={
            **FIELDS,
            "width": Setting(COUNT, ("hidden_size", "n_embed"), "embedding_length"),
            "layers": Setting(COUNT, ("num_hidden_layers", "n_layer"), "block_count"),
            "heads": Setting(COUNT, ("num_attention_heads", "n_head"), "attention.head_count"),
            "kv_heads": KVHeads(),
            "head_dim": Setting(NO_KEY, default=quotient("width", "heads")),
            "mlp_width": Setting(COUNT, "ffn_hidden_size", "feed_forward_length", default=times_width(4)),
            "norm_eps": layer_norm_eps("layer_norm_epsilon"),
            "rope": RopeField(),
            "grouped": Setting(
                FLAG, "new_decoder_architecture", default=_is_grouped, gguf_default=_gguf_grouped
            ),
            "parallel": Setting(FLAG, "parallel_attn", default=True),
            "norms": Setting(
                COUNT,
                "num_ln_in_parallel_attn",
                default=_hub_norms,
                gguf_default=_gguf_norms,
                checks=(_one_or_two,),
            ),
            "alibi": Setting(FLAG, "alibi", default=False),
            "bias": Setting(FLAG, "bias", default=False),
            "activation": Setting(ACTIVATIONS, "activation", default="gelu"),
            "tied_head": tied_head(True),
        },
        matrices=MATRICES,
    ),
    build={"causal": Falcon},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="falcon",
)
