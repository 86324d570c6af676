"""Defines ModernBERT: a pre-norm encoder that rotates queries and keys, and sees all tokens in some layers.

The other layers see a window. Warner et al., Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder
(2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from decodery.errors import ModelError
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    NO_KEY,
    POSITIVE,
    ConfigTable,
    Field,
    Fixed,
    Setting,
    Source,
    choice,
    is_even,
    quotient,
)
from decodery.models.contract import Family, Head, Names, Reads
from decodery.models.encoders.encoder import Encoder
from decodery.models.encoders.encoder_config import ACTIVATIONS, MATRICES, EncoderConfig, fields
from decodery.models.encoders.heads import Classes, MaskedLM, task_heads
from decodery.models.encoders.names import Modules, encoder_names, gguf_encoder_names
from decodery.models.layers.attention import Angles, Attention
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import Rope, Rotary
from decodery.models.rope_config import KindOfLayer, RopeByKind
from decodery.models.window_config import FULL, GGUF_PATTERN, LAYER_TYPES, WINDOWED, Windows, layer_types

HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes", "spans", "choices")
GLOBAL_LAYERS = "global_attn_every_n_layers"


@dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """Holds the sizes and values of a ModernBERT.

    `windows` has the window of each layer, None where it sees all tokens; an empty one means that all layers
    do. `ropes` are the rotary positions of layers with a window and of the others.
    """

    windows: Windows
    ropes: Mapping[str, Rope]
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool
    head_bias: bool
    head_activation: Activation
    decoder_bias: bool
    reads: Reads

    def window(self, layer: int) -> int | None:
        """Returns the window of a layer, None if it sees all tokens."""
        return self.windows[layer] if self.windows else None

    def attention(self, layer: int) -> AttentionLayer:
        return replace(super().attention(layer), window=self.window(layer))


class ModernBert(Encoder):
    """Defines a ModernBERT over the given kernels; its parameters are not initialised."""

    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig, kernels: Kernels, head: Head) -> None:
        tied = head == "masked_lm" and config.tied_head
        layers = [self._layer(config, layer, kernels) for layer in range(config.layers)]
        super().__init__(config, kernels, layers, tied=tied)
        self.embedding_norm = _norm(config, kernels)
        self.norm = _norm(config, kernels)
        self.rotary = {
            kind: Rotary(rope, config.head_dim, config.context_length, kernels)
            for kind, rope in config.ropes.items()
        }
        scores = partial(
            Classes,
            config.width,
            kernels=kernels,
            dense=config.head_activation,
            dense_bias=config.head_bias,
        )
        self.give_heads(
            task_heads(
                head,
                config.labels,
                masked_lm=self._masked_lm,
                whole=lambda labels: scores(labels, reads=config.reads, norm=_norm(config, kernels)),
                each=lambda labels: scores(labels, reads="tokens", norm=_norm(config, kernels)),
            )
        )

    @staticmethod
    def _layer(config: ModernBertConfig, layer: int, kernels: Kernels) -> PreNormBlock:
        return PreNormBlock(
            # The first layer reads the normalised embeddings.
            _norm(config, kernels) if layer else nn.Identity(),
            Attention(config.attention(layer), config.width, kernels, bias=config.attention_bias),
            _norm(config, kernels),
            GatedMLP(
                config.width, config.mlp_width, kernels, bias=config.mlp_bias, activation=config.activation
            ),
        )

    def _masked_lm(self) -> nn.Module:
        config, kernels = self.config, self.kernels
        return MaskedLM(
            config.width,
            config.vocab_size,
            kernels,
            norm=_norm(config, kernels),
            activation=config.head_activation,
            embedding=self.embedding if self.embedding.multiplied else None,
            dense_bias=config.head_bias,
            bias=config.decoder_bias,
        )

    def layer_inputs(self, positions: Tensor, segments: Tensor) -> Sequence[Angles]:
        """Returns the rotary angles of each layer."""
        kinds = [FULL if self.config.window(layer) is None else WINDOWED for layer in range(self.depth)]
        angles = {kind: self.rotary[kind](positions) for kind in dict.fromkeys(kinds)}
        return [angles[kind] for kind in kinds]


def _norm(config: ModernBertConfig, kernels: Kernels) -> LayerNorm:
    return LayerNorm(config.width, config.norm_eps, kernels, bias=config.norm_bias)


@dataclass(frozen=True)
class LocalLayers(Field):
    """Says how the windows of the layers are stored: `local_attention` counts the tokens on both sides.

    Which layers have it is said by `layer_types`, or older by the interval of those that see all tokens, the
    first of them layer 0.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.sliding_window",) if gguf else ("local_attention",)

    def read(self, source: Source, name: str) -> Windows:
        layers = source["layers"]
        key, every = source.key(self.keys(source.is_gguf)[0]), GLOBAL_LAYERS
        if source.is_gguf:
            every = source.key(GGUF_PATTERN)
        window = source.keys.count(key, 128) // 2 + 1
        kinds = None if source.is_gguf else layer_types(source.keys, layers, (WINDOWED, FULL))
        if kinds is None:
            interval = source.keys.count(every, 3)
            kinds = [WINDOWED if layer % interval else FULL for layer in range(layers)]
        windows = tuple(window if kind == WINDOWED else None for kind in kinds)
        return windows if any(windows) else ()

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            raise ModelError("a ModernBERT is not written as a GGUF file")
        kinds = [FULL if window is None else WINDOWED for window in value or (None,) * config.layers]
        window = next(filter(None, value), None)
        size = {} if window is None else {"local_attention": max(1, 2 * (window - 1))}
        return {**size, LAYER_TYPES: kinds}


class RopesOfBoth(RopeByKind):
    """Says that layers with a window rotate as the others do where the base of their own is null."""

    def read(self, source: Source, name: str) -> Mapping[str, Rope]:
        found = super().read(source, name)
        key = self.kinds[WINDOWED].hub
        null = key in source.keys.values and source.keys.values[key] is None
        return dict.fromkeys(found, found[FULL]) if null else found


MODERN_FIELDS = fields(
    head_dim=Setting(NO_KEY, default=quotient("width", "heads"), checks=(is_even("heads"),)),
    context_length=Setting(COUNT, "max_position_embeddings", "context_length", default=8192),
    positions=Setting(NO_KEY, default=0),
    segments=Setting(NO_KEY, default=0),
    norm_eps=Setting(POSITIVE, "norm_eps", "attention.layer_norm_epsilon", default=1e-5),
    activation=Setting(ACTIVATIONS, "hidden_activation", default="gelu"),
    windows=LocalLayers(),
    ropes=RopesOfBoth(
        {
            FULL: KindOfLayer(160000.0, "global_rope_theta", "rope.freq_base", gguf_theta=160000.0),
            WINDOWED: KindOfLayer(10000.0, "local_rope_theta", "rope.freq_base_swa", gguf_theta=10000.0),
        }
    ),
    attention_bias=Setting(FLAG, "attention_bias", default=False),
    mlp_bias=Setting(FLAG, "mlp_bias", default=False),
    norm_bias=Setting(FLAG, "norm_bias", default=False),
    head_bias=Setting(FLAG, "classifier_bias", default=False),
    head_activation=Setting(ACTIVATIONS, "classifier_activation", default="gelu"),
    decoder_bias=Setting(FLAG, "decoder_bias", default=True),
    reads=Setting(choice({"cls": "first", "mean": "mean"}), "classifier_pooling", default="first"),
)
UNSCALED = Fixed(
    hub="rope_scaling",
    accepted=({"rope_type": "default"}, {"type": "default"}),
    wanted="null: a scaling stands under rope_parameters, for each kind of layer",
)

LAYER = "layers.{i}."
BACKBONE: Modules = {
    "embedding": "embeddings.tok_embeddings",
    "embedding_norm": "embeddings.norm",
    "layers.{i}.attn_norm": f"{LAYER}attn_norm",
    "layers.{i}.attn.qkv": f"{LAYER}attn.Wqkv",
    "layers.{i}.attn.out": f"{LAYER}attn.Wo",
    "layers.{i}.mlp_norm": f"{LAYER}mlp_norm",
    # The half to which the activation belongs is the first one, in both forms.
    "layers.{i}.mlp.gate_up": f"{LAYER}mlp.Wi",
    "layers.{i}.mlp.down": f"{LAYER}mlp.Wo",
    "norm": "final_norm",
}
OUTPUTS: Modules = {
    **{f"heads.{head}.dense": "head.dense" for head in HEADS[1:]},
    **{f"heads.{head}.norm": "head.norm" for head in HEADS[1:]},
    "heads.masked_lm.out": "decoder",
    **{f"heads.{head}.out": "classifier" for head in HEADS[2:]},
}


def hub_names(config: ModernBertConfig) -> Names:
    """Returns the names in a hub folder."""
    return encoder_names("model.", BACKBONE, OUTPUTS, ignored=("head.*", "decoder.*"), tied=config.tied_head)


GGUF_BACKBONE: Modules = {
    "embedding": "token_embd",
    "embedding_norm": "token_embd_norm",
    "layers.{i}.attn_norm": "blk.{i}.attn_norm",
    "layers.{i}.attn.qkv": "blk.{i}.attn_qkv",
    "layers.{i}.attn.out": "blk.{i}.attn_output",
    "layers.{i}.mlp_norm": "blk.{i}.ffn_norm",
    "layers.{i}.mlp.gate_up": "blk.{i}.ffn_up",
    "layers.{i}.mlp.down": "blk.{i}.ffn_down",
    "norm": "output_norm",
}

MODERNBERT = Family(
    name="modernbert",
    config=ConfigTable(ModernBertConfig, fields=MODERN_FIELDS, fixed=(UNSCALED,), matrices=MATRICES),
    build={head: partial(ModernBert, head=head) for head in HEADS},
    hub_names=hub_names,
    gguf_names=lambda config: gguf_encoder_names(GGUF_BACKBONE),
    gguf="modern-bert",
)
