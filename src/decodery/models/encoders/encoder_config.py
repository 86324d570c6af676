"""Defines the fields that the configs of encoders share, and where checkpoints have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Activation
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import (
    COUNT,
    COUNT_FROM_0,
    FLAG,
    NO_KEY,
    POSITIVE,
    Default,
    Field,
    Kind,
    Setting,
    Source,
    choice,
    quotient,
    rows_of,
    value_of,
)

MOST_LABELS = 1 << 20


@dataclass(frozen=True)
class EncoderConfig:
    """Holds the sizes of an encoder; a family's config adds its own.

    `positions` is the number of rows of the table of learned positions, 0 without one, and `segments` that of
    the table of segments. `labels` is the number of classes of a head that has classes. `tied_head`: the
    matrix of the masked-LM head is the embedding.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    context_length: int
    positions: int
    segments: int
    norm_eps: float
    activation: Activation
    labels: int
    tied_head: bool

    @property
    def extensible(self) -> bool:
        return False

    @property
    def embedding_width(self) -> int:
        """Returns the width of the embeddings, which is that of the layers unless a family projects them."""
        return self.width

    def attention(self, layer: int) -> AttentionLayer:
        """Returns the attention of a layer."""
        size = self.head_dim
        return AttentionLayer(layer, self.heads, self.kv_heads, size, size, size**-0.5, causal=False)


def _count_of_labels(keys: CheckpointKeys, key: str) -> int:
    """Returns the number of labels that `num_labels` or the table `id2label` has."""
    stored = keys.values[key]
    if not isinstance(stored, Mapping):
        return keys.count(key)
    if not stored or len(stored) > MOST_LABELS:
        raise keys.error(key, f"a table of 1 to {MOST_LABELS} labels")
    return len(stored)


def count_of_labels(keys: CheckpointKeys) -> int:
    """Returns the number of classes that a config.json names; 2 if it names none."""
    key = next((key for key in LABEL_KEYS if keys.has(key)), None)
    return 2 if key is None else _count_of_labels(keys, key)


LABEL_KEYS = ("id2label", "num_labels")
LABELS = Kind(_count_of_labels, lambda count: {str(label): f"LABEL_{label}" for label in range(count)})
"""The kind of a number of labels that is stored as the table of their names."""

SPELLINGS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
ACTIVATIONS = choice(SPELLINGS)
HEAD_ACTIVATIONS = choice({**SPELLINGS, "tanh": "tanh", "linear": "linear"})
"""The kind of a `HeadActivation`."""


def rows_if(tensor: str) -> Default:
    """Returns the default that is the number of rows of a tensor, 0 if there is none."""

    def default(source: Source) -> int:
        found: int = rows_of(tensor)(source) if source.has_tensor(tensor) else 0
        return found

    return default


MATRICES = (("vocab_size",), ("mlp_width",), ("heads", "head_dim"))

POSITIONS = Setting(COUNT, "max_position_embeddings", "context_length", default=512)
FIELDS: Mapping[str, Field] = {
    "vocab_size": Setting(COUNT, "vocab_size", "vocab_size", gguf_default=rows_of("token_embd.weight")),
    "width": Setting(COUNT, "hidden_size", "embedding_length"),
    "layers": Setting(COUNT, "num_hidden_layers", "block_count"),
    "heads": Setting(COUNT, "num_attention_heads", "attention.head_count"),
    "kv_heads": Setting(NO_KEY, default=value_of("heads")),
    "head_dim": Setting(NO_KEY, default=quotient("width", "heads")),
    "mlp_width": Setting(COUNT, "intermediate_size", "feed_forward_length"),
    "context_length": POSITIONS,
    # The same key: after a model was opened for a shorter context, the table of positions is still whole.
    "positions": POSITIONS,
    "segments": Setting(
        COUNT_FROM_0, "type_vocab_size", default=2, gguf_default=rows_if("token_types.weight")
    ),
    "norm_eps": Setting(POSITIVE, "layer_norm_eps", "attention.layer_norm_epsilon", default=1e-12),
    "activation": Setting(ACTIVATIONS, "hidden_act", default="gelu"),
    "labels": Setting(LABELS, LABEL_KEYS, default=2, gguf_default=rows_if("cls.output.weight")),
    "tied_head": Setting(FLAG, "tie_word_embeddings", default=True),
}
"""The keys and defaults of BERT; a family replaces those that differ."""


def fields(**others: Any) -> Mapping[str, Field]:
    """Returns `FIELDS` with some of them replaced or added."""
    return {**FIELDS, **others}
