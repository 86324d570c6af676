"""Defines the fields that the configs of decoders share, and where checkpoints have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    NO_KEY,
    POSITIVE,
    REQUIRED,
    Default,
    Field,
    Fixed,
    Setting,
    choice,
    divides,
    is_even,
    is_missing,
    missing_or_null,
    quotient,
    rows_of,
    value_of,
)
from decodery.models.layers.rope import DynamicRope, Rope, Rotary


@dataclass(frozen=True)
class DecoderConfig:
    """Holds the sizes of a decoder; a family's config adds its own."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    context_length: int
    tied_head: bool

    @property
    def extensible(self) -> bool:
        """True if the model can be opened for a longer context than `context_length`."""
        return False


@dataclass(frozen=True)
class PartialRotaryConfig(DecoderConfig):
    """Holds the fields of decoders with LayerNorm that rotate the first `rotated` elements of a head."""

    norm_eps: float
    rotated: int
    rope: Rope

    @property
    def extensible(self) -> bool:
        return isinstance(self.rope, DynamicRope)

    def rotary(self, kernels: Kernels) -> Rotary:
        """Returns the rotary positions of all layers."""
        return Rotary(self.rope, self.rotated, self.context_length, kernels)

    def attention(self, layer: int, window: int | None = None) -> AttentionLayer:
        """Returns the attention of a layer."""
        size = self.head_dim
        return AttentionLayer(layer, self.heads, self.kv_heads, size, size, size**-0.5, window=window)


def head_size(default: Any) -> Setting:
    """Returns the setting of a head's size; `default` is that of a config.json without the key."""
    return Setting(
        COUNT,
        "head_dim",
        "attention.key_length",
        default=default,
        gguf_default=quotient("width", "heads"),
        checks=(is_even("heads"),),
    )


NULL_IS_QUOTIENT = missing_or_null("head_dim", 128, quotient("width", "heads"))
"""The default of a head's size that is 128 without the key, and the width by the heads where it is null."""


def kv_heads(default: int | None = None) -> Setting:
    """Returns the setting of the number of heads of keys and values, with the default of a config.json.

    Null in a config.json means all heads, and so does None for `default`.
    """
    all_heads = value_of("heads")
    missing = all_heads if default is None else missing_or_null("num_key_value_heads", default, all_heads)
    return Setting(
        COUNT,
        "num_key_value_heads",
        "attention.head_count_kv",
        default=missing,
        gguf_default=value_of("heads"),
        checks=(divides("heads"),),
    )


def tied_head(default: bool) -> Setting:
    """Returns the setting that the head is the embedding, with the default of a config.json."""
    return Setting(FLAG, "tie_word_embeddings", default=default, gguf_default=is_missing("output.weight"))


def context_length(default: int, *hub: str) -> Setting:
    """Returns the setting of the context's length, with the default of a config.json and its other keys."""
    keys = hub or ("max_position_embeddings",)
    return Setting(COUNT, keys, "context_length", default=default, gguf_default=REQUIRED)


FIELDS: Mapping[str, Field] = {
    "vocab_size": Setting(COUNT, "vocab_size", "vocab_size", gguf_default=rows_of("token_embd.weight")),
    "width": Setting(COUNT, "hidden_size", "embedding_length"),
    "layers": Setting(COUNT, "num_hidden_layers", "block_count"),
    "heads": Setting(COUNT, "num_attention_heads", "attention.head_count"),
    "kv_heads": kv_heads(),
    "head_dim": head_size(quotient("width", "heads")),
    "mlp_width": Setting(COUNT, "intermediate_size", "feed_forward_length"),
    "context_length": context_length(2048),
    "tied_head": tied_head(False),
}
"""The keys and defaults of most families; a family replaces those that differ."""


def if_missing(*, context: int = 2048, heads: int | None = None) -> Mapping[str, Field]:
    """Returns the settings of the context's length and of the heads of keys and values of a family.

    `context` and `heads` are the numbers of a config.json without the keys; None: as many as queries have.
    """
    return {"context_length": context_length(context), "kv_heads": kv_heads(heads)}


SAME_VALUE_SIZE = Fixed(
    gguf="attention.value_length", value=lambda config: config.head_dim, wanted="the size of a key ({value})"
)
"""A value has as many elements as a key."""

ACTIVATIONS = choice(
    {
        "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu": "gelu",
        "gelu_python": "gelu",
        "relu": "relu",
        "silu": "silu",
        "swish": "silu",
    }
)
"""The kind of an activation of config.json; GGUF files have no key for it."""

ONE_KV_HEAD_EACH = Setting(NO_KEY, default=value_of("heads"))
"""The setting of families in which each head has its own keys and values."""


def layer_norm_eps(*hub: str) -> Setting:
    """Returns the setting of what a LayerNorm adds to the variance."""
    return Setting(POSITIVE, hub, "attention.layer_norm_epsilon", default=1e-5, gguf_default=REQUIRED)


def times_width(factor: int) -> Default:
    """Returns the default that is a multiple of the width."""
    return lambda source: factor * source["width"]


MATRICES = (("vocab_size",), ("heads", "head_dim"), ("mlp_width",))
"""The rows of matrices that have `width` columns, of each decoder."""
