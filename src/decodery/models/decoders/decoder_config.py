"""Defines the fields that the configs of decoders share, and where checkpoints have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.models.config_reader import (
    COUNT,
    FLAG,
    REQUIRED,
    Field,
    Fixed,
    Setting,
    divides,
    is_even,
    is_missing,
    quotient,
    rows_of,
    value_of,
)


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


def tied_head(default: bool) -> Setting:
    """Returns the setting that the head is the embedding, with the default of a config.json."""
    return Setting(FLAG, "tie_word_embeddings", default=default, gguf_default=is_missing("output.weight"))


FIELDS: Mapping[str, Field] = {
    "vocab_size": Setting(COUNT, "vocab_size", "vocab_size", gguf_default=rows_of("token_embd.weight")),
    "width": Setting(COUNT, "hidden_size", "embedding_length"),
    "layers": Setting(COUNT, "num_hidden_layers", "block_count"),
    "heads": Setting(COUNT, "num_attention_heads", "attention.head_count"),
    "kv_heads": Setting(
        COUNT,
        "num_key_value_heads",
        "attention.head_count_kv",
        default=value_of("heads"),
        checks=(divides("heads"),),
    ),
    "head_dim": head_size(quotient("width", "heads")),
    "mlp_width": Setting(COUNT, "intermediate_size", "feed_forward_length"),
    "context_length": Setting(
        COUNT, "max_position_embeddings", "context_length", default=2048, gguf_default=REQUIRED
    ),
    "tied_head": tied_head(False),
}
"""The keys and defaults of most families; a family replaces those that differ."""

SAME_VALUE_SIZE = Fixed(
    gguf="attention.value_length", value=lambda config: config.head_dim, wanted="the size of a key ({value})"
)
"""A value has as many elements as a key."""

MATRICES = (("vocab_size",), ("heads", "head_dim"), ("mlp_width",))
"""The rows of matrices that have `width` columns, of each decoder."""
