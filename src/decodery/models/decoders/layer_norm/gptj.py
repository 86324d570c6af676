"""Defines GPT-J: attention and MLP read one normalised input, and neighbouring elements of a head rotate.

Wang and Komatsuzaki, GPT-J-6B (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import COUNT, NO_KEY, ConfigTable, Setting, Source
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import MATRICES, PartialRotaryConfig, context_length, tied_head
from decodery.models.decoders.layer_norm.gpt2 import CONTEXT, GPT2_FIELDS
from decodery.models.decoders.names import Spelling, decoder_names
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import ParallelBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import Rope
from decodery.weights.transforms import permuted


@dataclass(frozen=True)
class GPTJConfig(PartialRotaryConfig):
    """Holds the sizes and values of one GPT-J."""

    activation: Activation = "gelu_tanh"


class GPTJ(Decoder):
    """Defines a GPT-J over the given kernels; its parameters are not initialised."""

    def __init__(self, config: GPTJConfig, kernels: Kernels) -> None:
        width, eps = config.width, config.norm_eps
        blocks = [
            ParallelBlock(
                LayerNorm(width, eps, kernels),
                Attention(config.attention(layer), width, kernels),
                PlainMLP(width, config.mlp_width, config.activation, kernels),
            )
            for layer in range(config.layers)
        ]
        norm = LayerNorm(width, eps, kernels)
        rotary = config.rotary(kernels)
        super().__init__(config, kernels, blocks, norm, rotary=rotary, head_bias=True)


def _rotated(source: Source) -> int:
    if "rotary_dim" in source.keys.values:
        raise source.keys.error("rotary_dim", "a number: with null, the frequencies do not fit a head")
    return 64


def _fits_a_head(source: Source, name: str) -> None:
    if source[name] % 2 or source[name] > source["head_dim"]:
        raise source.error(name, f"an even part of a head of {source['head_dim']}")


HUB = Spelling(
    embedding="transformer.wte",
    layer="transformer.h.{i}.",
    norms={"attn_norm": "ln_1"},
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    out="attn.out_proj",
    gate_up=(),
    up="mlp.fc_in",
    down="mlp.fc_out",
    norm="transformer.ln_f",
    head="lm_head",
    # Buffers of older versions.
    derived=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
)


def _hub_names(config: GPTJConfig) -> Names:
    pairs = permuted(config.heads, config.rotated)
    return decoder_names(HUB, config, qkv=(pairs, pairs, None))


_SHARED: dict[str, Any] = {name: field for name, field in GPT2_FIELDS.items() if name != "positions"}
GPTJ_FAMILY = Family(
    name="gptj",
    config=ConfigTable(
        GPTJConfig,
        fields={
            **_SHARED,
            "context_length": context_length(2048, *CONTEXT),
            "rotated": Setting(COUNT, "rotary_dim", default=_rotated, checks=(_fits_a_head,)),
            # The hub's code reads no key for it.
            "rope": Setting(NO_KEY, default=Rope()),
            "tied_head": tied_head(False),
        },
        matrices=MATRICES,
    ),
    build={"causal": GPTJ},
    hub_names=_hub_names,
)
