"""Defines the config of DeBERTa 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import (
    COUNT,
    COUNT_FROM_0,
    FLAG,
    NO_KEY,
    POSITIVE,
    Field,
    Fixed,
    Kind,
    Setting,
    Source,
    choice,
    divides,
    quotient,
    value_of,
)
from decodery.models.encoders.encoder_config import HEAD_ACTIVATIONS, EncoderConfig, fields
from decodery.models.encoders.heads import HeadActivation

CONTENT_TO_POSITION, POSITION_TO_CONTENT = "c2p", "p2c"


@dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """Holds the sizes and values of one DeBERTa.

    `relative`: scores depend on the distance between query and key. `position_scores` are the parts that do:
    "c2p", the query times a key of the distance, and "p2c", the key times a query of the distance. `reach` is
    the largest distance, and `buckets` is the number of distances on each side that differ, 0 if all do.
    `shared`: the maps of queries and keys make those of distances, too. `norm_distances`: the table of
    distances is normalised. `kernel_size` is that of the convolution beside the first layer, 0 without one.
    `first`: it is DeBERTa 1, in which keys have no biases, and those of queries and values are stored apart.
    `legacy`: the masked-LM head is stored as BERT's is.
    """

    first: bool
    stored_width: int
    relative: bool
    position_scores: tuple[str, ...]
    reach: int
    buckets: int
    shared: bool
    norm_distances: bool
    kernel_size: int
    kernel_groups: int
    kernel_activation: HeadActivation
    pooler_activation: HeadActivation
    legacy: bool

    @property
    def embedding_width(self) -> int:
        return self.stored_width

    @property
    def scale(self) -> float:
        """Returns the factor of the scores, of which there are up to three parts."""
        scale: float = (self.head_dim * (1 + len(self.position_scores))) ** -0.5
        return scale

    @property
    def span(self) -> int:
        """Returns the number of rows of the table of distances on each side."""
        return self.buckets or self.reach

    def rows(self, length: int) -> Tensor:
        """Returns the rows of the table for the distances from `1 - length` to `length - 1`, in int64.

        The distance is the query's position less the key's. With `buckets`, distances up to half of them have
        rows of their own, and rows further away cover as many distances as are in proportion. He, Gao and
        Chen, DeBERTaV3 (2021).
        """
        distances = torch.arange(1 - length, length, device="cpu")
        if self.buckets:
            half = self.buckets // 2
            far = distances.abs().clamp(min=half).float() / half
            # In float32 as the model was trained: a row changes where a logarithm is rounded the other way.
            whole = torch.tensor((self.reach - 1) / half, dtype=torch.float32, device="cpu").log()
            steps = (far.log() / whole * (half - 1)).ceil() + half
            distances = torch.where(
                distances.abs() <= half, distances, (steps * distances.sign()).to(torch.int64)
            )
        return (distances + self.span).clamp(0, 2 * self.span - 1)


def _read_parts(keys: CheckpointKeys, key: str) -> tuple[str, ...]:
    stored = keys.values[key]
    names = stored.lower().split("|") if isinstance(stored, str) else stored
    known = (CONTENT_TO_POSITION, POSITION_TO_CONTENT)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise keys.error(key, "a list of names, or names with | between them")
    found = [name.strip() for name in names if name.strip()]
    if any(name not in known for name in found) or len(set(found)) != len(found):
        raise keys.error(key, f"made of {' and '.join(known)}, the other parts are not supported")
    return tuple(name for name in known if name in found)


def _read_reach(keys: CheckpointKeys, key: str) -> int:
    """Returns the largest distance; a value below 1 stands for the length of the context."""
    stored = keys.count(key, least=-1)
    return stored if stored > 0 else keys.count("max_position_embeddings", 512)


def _check_buckets(source: Source, name: str) -> None:
    half = source[name] // 2
    if source["relative"] and source[name] and not 1 <= half < source["reach"] - 1:
        raise source.error(name, f"from 2 to less than twice the largest distance ({source['reach']} - 1)")


def _check_kernel(source: Source, name: str) -> None:
    if source[name] and source[name] % 2 == 0:
        raise source.error(name, "odd, so that a text keeps its length")


@dataclass(frozen=True)
class PositionTable(Field):
    """Says that a table of learned positions is added to the embeddings unless a flag is false."""

    def keys(self, gguf: bool) -> tuple[str, ...]:
        return () if gguf else ("position_biased_input",)

    def read(self, source: Source, name: str) -> int:
        added = source.keys.flag("position_biased_input", True)
        return int(source["context_length"]) if added else 0

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {} if gguf else {"position_biased_input": value > 0}


PARTS = Kind(_read_parts, list)
REACH = Kind(_read_reach)
BUCKETS = Kind(lambda keys, key: max(0, keys.count(key, least=-1)))
NORMS = choice({"none": False, "layer_norm": True})
DEBERTA_FIELDS = fields(
    norm_eps=Setting(POSITIVE, "layer_norm_eps", default=1e-7),
    positions=PositionTable(),
    segments=Setting(COUNT_FROM_0, "type_vocab_size", default=0),
    first=Setting(NO_KEY, default=True),
    stored_width=Setting(COUNT, "embedding_size", default=value_of("width")),
    relative=Setting(FLAG, "relative_attention", default=False),
    position_scores=Setting(PARTS, "pos_att_type", default=()),
    reach=Setting(REACH, "max_relative_positions", default=value_of("context_length")),
    buckets=Setting(NO_KEY, default=0),
    shared=Setting(NO_KEY, default=False),
    norm_distances=Setting(NO_KEY, default=False),
    kernel_size=Setting(NO_KEY, default=0),
    kernel_groups=Setting(NO_KEY, default=1),
    kernel_activation=Setting(NO_KEY, default="tanh"),
    pooler_activation=Setting(HEAD_ACTIVATIONS, "pooler_hidden_act", default="gelu"),
    legacy=Setting(FLAG, "legacy", default=True),
)
DEBERTA2_FIELDS: Mapping[str, Field] = {
    **DEBERTA_FIELDS,
    "first": Setting(NO_KEY, default=False),
    "head_dim": Setting(COUNT, "attention_head_size", default=quotient("width", "heads")),
    "buckets": Setting(BUCKETS, "position_buckets", default=0, checks=(_check_buckets,)),
    "shared": Setting(FLAG, "share_att_key", default=False),
    "norm_distances": Setting(NORMS, "norm_rel_ebd", default=False),
    "kernel_size": Setting(COUNT_FROM_0, "conv_kernel_size", default=0, checks=(_check_kernel,)),
    "kernel_groups": Setting(COUNT, "conv_groups", default=1, checks=(divides("width"),)),
    "kernel_activation": Setting(HEAD_ACTIVATIONS, "conv_act", default="tanh"),
}
POOLER_WIDTH = Fixed(
    hub="pooler_hidden_size", value=lambda config: config.width, wanted="hidden_size ({value})"
)
PLAIN_HEADS = Fixed(hub="talking_head", value=False, wanted="false: heads that mix are not supported")
