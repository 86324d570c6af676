"""Defines NomicBERT: a BERT that rotates queries and keys, with a gated MLP and no biases in its layers.

Nussbaum et al., Nomic Embed: Training a Reproducible Long Context Text Embedder (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import (
    COUNT,
    NO_KEY,
    POSITIVE,
    ConfigTable,
    Fixed,
    Kind,
    Setting,
    choice,
    is_even,
    quotient,
)
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import GGUF_BACKBONE, OUTPUTS, POOLER, Bert
from decodery.models.encoders.encoder_config import MATRICES, SPELLINGS, EncoderConfig, fields
from decodery.models.encoders.names import Modules, encoder_names, gguf_encoder_names, module_rules
from decodery.models.layers.attention import Angles, Attention
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import Rope, Rotary
from decodery.models.rope_config import RopeField

HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes")


@dataclass(frozen=True)
class NomicBertConfig(EncoderConfig):
    """Holds the sizes and values of a NomicBERT, with the rotary positions of all layers."""

    rope: Rope


class NomicBert(Bert):
    """Defines a NomicBERT over the given kernels; its parameters are not initialised."""

    config: NomicBertConfig

    def __init__(self, config: NomicBertConfig, kernels: Kernels, head: Head) -> None:
        super().__init__(config, kernels, head, [_layer(config, i, kernels) for i in range(config.layers)])
        self.rotary = Rotary(config.rope, config.head_dim, config.context_length, kernels)

    def layer_inputs(self, positions: Tensor, segments: Tensor) -> Sequence[Angles]:
        """Returns the rotary angles, which all layers share."""
        return [self.rotary(positions)] * self.depth


def _layer(config: NomicBertConfig, layer: int, kernels: Kernels) -> PostNormBlock:
    width, eps = config.width, config.norm_eps
    return PostNormBlock(
        Attention(config.attention(layer), width, kernels),
        LayerNorm(width, eps, kernels),
        GatedMLP(width, config.mlp_width, kernels, activation=config.activation),
        LayerNorm(width, eps, kernels),
    )


def _trained_length(keys: CheckpointKeys, key: str) -> int:
    """Returns the length for which a model was trained; older files also have one to which it is scaled."""
    found = keys.count(key)
    return min(found, keys.count("max_trained_positions", 2048)) if key == "n_positions" else found


ACTIVATIONS = choice({"silu": "silu", **SPELLINGS, "swiglu": "silu", "geglu": "gelu"})
CONFIG = ConfigTable(
    NomicBertConfig,
    fields=fields(
        width=Setting(COUNT, ("hidden_size", "n_embd"), "embedding_length"),
        layers=Setting(COUNT, ("num_hidden_layers", "n_layer"), "block_count"),
        heads=Setting(COUNT, ("num_attention_heads", "n_head"), "attention.head_count"),
        head_dim=Setting(NO_KEY, default=quotient("width", "heads"), checks=(is_even("heads"),)),
        mlp_width=Setting(COUNT, ("intermediate_size", "n_inner"), "feed_forward_length"),
        context_length=Setting(
            Kind(_trained_length), ("max_position_embeddings", "n_positions"), "context_length", default=2048
        ),
        positions=Setting(NO_KEY, default=0),
        norm_eps=Setting(
            POSITIVE,
            ("layer_norm_eps", "layer_norm_epsilon"),
            "attention.layer_norm_epsilon",
            default=1e-12,
        ),
        activation=Setting(ACTIVATIONS, ("hidden_act", "activation_function"), default="silu"),
        rope=RopeField(default=Rope(1000.0), theta="rotary_emb_base"),
    ),
    fixed=(
        *(
            Fixed(hub=key, accepted=(False,), wanted="false: such a NomicBERT is not supported")
            for key in ("prenorm", "causal", "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")
        ),
        Fixed(hub="rotary_emb_interleaved", accepted=(False,), wanted="false: the halves of a head rotate"),
        Fixed(hub="rotary_emb_fraction", accepted=(1.0, 1), wanted="1: all of a head rotates"),
        Fixed(hub="rotary_emb_scale_base", wanted="null: such a scaling is not supported"),
        Fixed(hub="moe_every_n_layers", accepted=(0,), wanted="0: experts are not supported"),
    ),
    matrices=MATRICES,
)

LAYER = "layers.{i}."
EMBEDDINGS: Modules = {
    "embedding": "embeddings.word_embeddings",
    "segment": "embeddings.token_type_embeddings",
}
BACKBONE: Modules = {
    **EMBEDDINGS,
    "embedding_norm": "embeddings.LayerNorm",
    "layers.{i}.attn.qkv": tuple(f"{LAYER}self_attn.{name}_proj" for name in "qkv"),
    "layers.{i}.attn.out": f"{LAYER}self_attn.o_proj",
    "layers.{i}.attn_norm": f"{LAYER}post_attention_layernorm",
    "layers.{i}.mlp.gate_up": (f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    "layers.{i}.mlp.down": f"{LAYER}mlp.down_proj",
    "layers.{i}.mlp_norm": f"{LAYER}post_mlp_layernorm",
}
OLDER: Modules = {
    **EMBEDDINGS,
    "embedding_norm": "emb_ln",
    "layers.{i}.attn.qkv": f"encoder.{LAYER}attn.Wqkv",
    "layers.{i}.attn.out": f"encoder.{LAYER}attn.out_proj",
    "layers.{i}.attn_norm": f"encoder.{LAYER}norm1",
    "layers.{i}.mlp.gate_up": (f"encoder.{LAYER}mlp.fc12", f"encoder.{LAYER}mlp.fc11"),
    "layers.{i}.mlp.down": f"encoder.{LAYER}mlp.fc2",
    "layers.{i}.mlp_norm": f"encoder.{LAYER}norm2",
}
"""The names that the authors' own code gives, which published folders have."""
PREFIXES = ("nomic_bert.", "bert.", "")


def hub_names(config: NomicBertConfig) -> Names:
    """Returns the names in a hub folder, of transformers or of the authors."""
    return encoder_names(
        PREFIXES[0],
        {**BACKBONE, **POOLER},
        {**OUTPUTS, "heads.masked_lm.norm": "cls.predictions.transform.layer_norm"},
        masked_bias="cls.predictions.bias",
        ignored=("*pooler.dense.*", "cls.*"),
        tied=config.tied_head,
        further=module_rules({**OLDER, **POOLER}, PREFIXES),
    )


def gguf_names(config: NomicBertConfig) -> Names:
    """Returns the names in a GGUF file."""
    gated: Modules = {
        **{ours: stored for ours, stored in GGUF_BACKBONE.items() if ours != "layers.{i}.mlp.up"},
        "layers.{i}.attn.qkv": "blk.{i}.attn_qkv",
        "layers.{i}.mlp.gate_up": ("blk.{i}.ffn_gate", "blk.{i}.ffn_up"),
    }
    return gguf_encoder_names(gated)


NOMICBERT = Family(
    name="nomicbert",
    config=CONFIG,
    build={head: partial(NomicBert, head=head) for head in HEADS},
    hub_names=hub_names,
    gguf_names=gguf_names,
    gguf="nomic-bert",
)
