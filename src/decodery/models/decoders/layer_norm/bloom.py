"""Defines BLOOM: a pre-norm decoder with ALiBi, whose embeddings are normalised.

BigScience Workshop, BLOOM: A 176B-Parameter Open-Access Multilingual Language Model (2022).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import COUNT, FLAG, ConfigTable, Setting
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    MATRICES,
    DecoderConfig,
    context_length,
    layer_norm_eps,
    times_width,
)
from decodery.models.decoders.layer_norm.gpt2 import GPT2_FIELDS
from decodery.models.decoders.names import GGUF_FUSED, Spelling, decoder_names, either, without_prefix
from decodery.models.layers.alibi import alibi
from decodery.models.layers.attention import Angles, Attend, Attention
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.weights.names import Rule, rename
from decodery.weights.transforms import grouped


@dataclass(frozen=True)
class BloomConfig(DecoderConfig):
    """Holds the sizes and values of one BLOOM.

    With `normed_residual`, what attention and MLP are added to is their normalised input.
    """

    norm_eps: float
    normed_residual: bool = False

    @property
    def extensible(self) -> bool:
        return True


class Bloom(Decoder):
    """Defines a BLOOM over the given kernels; its parameters are not initialised."""

    def __init__(self, config: BloomConfig, kernels: Kernels) -> None:
        width, eps, size = config.width, config.norm_eps, config.head_dim
        kind = NormedResidualBlock if config.normed_residual else PreNormBlock
        bias = alibi(config.heads, config.context_length)
        blocks = [
            kind(
                LayerNorm(width, eps, kernels),
                Attention(
                    AttentionLayer(layer, config.heads, config.heads, size, size, size**-0.5, bias=bias),
                    width,
                    kernels,
                    bias=True,
                ),
                LayerNorm(width, eps, kernels),
                PlainMLP(width, config.mlp_width, "gelu_tanh", kernels),
            )
            for layer in range(config.layers)
        ]
        super().__init__(config, kernels, blocks, LayerNorm(width, eps, kernels))
        self.embedding_norm = LayerNorm(width, eps, kernels)

    def first_states(self, x: Tensor, positions: Tensor) -> Tensor:
        out: Tensor = self.embedding_norm(x)
        return out


class NormedResidualBlock(PreNormBlock):
    """Computes attention, then the MLP, and adds each to its normalised input."""

    def forward(self, x: Tensor, angles: Angles | None, attend: Attend) -> Tensor:
        x = self.attn_norm(x)
        x = self.mlp_norm(self.attn(x, angles, attend, residual=x))
        out: Tensor = self.mlp(x, residual=x)
        return out


HUB = Spelling(
    embedding="transformer.word_embeddings",
    layer="transformer.h.{i}.",
    norms={"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    qkv=("self_attention.query_key_value",),
    out="self_attention.dense",
    gate_up=(),
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norm="transformer.ln_f",
    head="lm_head",
)


def _embedding_norm(stored: str) -> list[Rule]:
    return [rename(f"embedding_norm.{kind}", f"{stored}.{kind}") for kind in ("weight", "bias")]


def _hub_names(config: BloomConfig) -> Names:
    by_head = [grouped(config.heads, config.heads)]
    spellings = HUB, without_prefix(HUB, "transformer.")
    return either(
        *(
            decoder_names(each, config, qkv=by_head, further=_embedding_norm(f"{each.embedding}_layernorm"))
            for each in spellings
        )
    )


BLOOM = Family(
    name="bloom",
    config=ConfigTable(
        BloomConfig,
        fields={
            **{name: field for name, field in GPT2_FIELDS.items() if name not in ("positions", "activation")},
            "width": Setting(COUNT, ("hidden_size", "n_embed"), "embedding_length"),
            "mlp_width": Setting(COUNT, gguf="feed_forward_length", default=times_width(4)),
            "context_length": context_length(2048, "seq_length"),
            "norm_eps": layer_norm_eps("layer_norm_epsilon"),
            "normed_residual": Setting(FLAG, "apply_residual_connection_post_layernorm", default=False),
        },
        matrices=MATRICES,
    ),
    build={"causal": Bloom},
    hub_names=_hub_names,
    gguf_names=lambda config: decoder_names(GGUF_FUSED, config, further=_embedding_norm("token_embd_norm")),
    gguf="bloom",
)
