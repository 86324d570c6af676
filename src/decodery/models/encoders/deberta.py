"""Defines DeBERTa 1 to 3: BERT whose scores have parts that depend on the distance of query and key.

He et al., DeBERTa: Decoding-enhanced BERT with Disentangled Attention (2021); He, Gao and Chen, DeBERTaV3
(2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import ConfigTable
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.deberta_config import (
    CONTENT_TO_POSITION,
    DEBERTA2_FIELDS,
    DEBERTA_FIELDS,
    PLAIN_HEADS,
    POOLER_WIDTH,
    POSITION_TO_CONTENT,
    DebertaConfig,
)
from decodery.models.encoders.encoder import Encoder
from decodery.models.encoders.encoder_config import MATRICES
from decodery.models.encoders.heads import Classes, activated, task_heads, transformed_masked_lm
from decodery.models.encoders.names import Modules, encoder_names, module_rules
from decodery.models.layers.attention import TextAttend
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.relative_scores import at_distances, by_head, longest, mixed
from decodery.weights.names import Rule, rename
from decodery.weights.transforms import Transform, grouped

HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes", "spans", "choices")


class Distances(NamedTuple):
    """Holds the vectors of distances that a batch needs, [rows, width], and which of them a distance has.

    `rows` are those of the distances from `1 - n` to `n - 1`, for texts of n tokens at most.
    """

    vectors: Tensor
    rows: Tensor

    def of(self, length: int) -> Tensor:
        """Returns the rows of the distances from `1 - length` to `length - 1`."""
        middle = len(self.rows) // 2
        return self.rows[middle + 1 - length : middle + length]


class DisentangledAttention(nn.Module):
    """Computes attention whose scores add up to three parts: of contents, and of contents and distances.

    With query i, key j and their distance, these are `q_i k_j`, `q_i K(distance)` and `Q(distance) k_j`.
    """

    def __init__(self, config: DebertaConfig, kernels: Kernels) -> None:
        super().__init__()
        width, inner = config.width, config.heads * config.head_dim
        self.config = config
        self.qkv = Linear(width, 3 * inner, kernels, bias=not config.first)
        self.query_bias = nn.Parameter(torch.empty(inner)) if config.first else None
        self.value_bias = nn.Parameter(torch.empty(inner)) if config.first else None
        self.out = Linear(inner, width, kernels, bias=True)
        own = config.relative and not config.shared
        self.position_key: Linear | None = None
        self.position_query: Linear | None = None
        if own and CONTENT_TO_POSITION in config.position_scores:
            self.position_key = Linear(width, inner, kernels, bias=not config.first)
        if own and POSITION_TO_CONTENT in config.position_scores:
            self.position_query = Linear(width, inner, kernels, bias=True)

    def forward(
        self, x: Tensor, given: Distances | None, attend: TextAttend, residual: Tensor | None = None
    ) -> Tensor:
        """Computes the attention of states x [..., width], plus `residual`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.query_bias is not None and self.value_bias is not None:
            q, v = q + self.query_bias, v + self.value_bias
        compute = partial(self._attention, given, *self._of_distances(given))
        out: Tensor = self.out(attend.whole_texts(compute, q, k, v), residual)
        return out

    def _of_distances(self, given: Distances | None) -> tuple[Tensor | None, Tensor | None]:
        """Returns the keys and the queries of distances [rows, heads * head_dim], None without that part."""
        if given is None:
            return None, None
        keys = queries = None
        if self.config.shared:
            queries, keys, _ = self.qkv(given.vectors).chunk(3, -1)
        if self.position_key is not None:
            keys = self.position_key(given.vectors)
        if self.position_query is not None:
            queries = self.position_query(given.vectors)
        parts = self.config.position_scores
        return (
            keys if CONTENT_TO_POSITION in parts else None,
            queries if POSITION_TO_CONTENT in parts else None,
        )

    def _attention(
        self,
        given: Distances | None,
        far_keys: Tensor | None,
        far_queries: Tensor | None,
        *parts: Tensor,
        hidden: Tensor | None,
    ) -> Tensor:
        heads, length = self.config.heads, parts[0].shape[1]
        q, k, v = (by_head(part, heads) for part in parts)
        q = q * self.config.scale
        scores = q @ k.transpose(-1, -2)
        if given is not None:
            rows = given.of(length)
            if far_keys is not None:
                # Keys further to the right have smaller distances.
                columns = by_head(far_keys[rows.flip(0)], heads).transpose(-1, -2)
                scores = scores + at_distances((q @ columns).contiguous(), length)
            if far_queries is not None:
                # Here a row is a key and a column a query, so distances grow to the right.
                columns = by_head(far_queries[rows] * self.config.scale, heads).transpose(-1, -2)
                scores = scores + at_distances((k @ columns).contiguous(), length).transpose(-1, -2)
        return mixed(scores, v, hidden)


class ConvolvedBlock(PostNormBlock):
    """Adds to a layer's result a convolution of its input, and normalises the sum, as DeBERTa 2 does first.

    The convolution sees zeros beside a text.
    """

    def __init__(self, config: DebertaConfig, kernels: Kernels, *parts: nn.Module) -> None:
        super().__init__(*parts)
        size, groups = config.kernel_size, config.kernel_groups
        self.kernels = kernels
        self.groups = groups
        self.activation = config.kernel_activation
        self.kernel = nn.Parameter(torch.empty(config.width, config.width // groups, size))
        self.bias = nn.Parameter(torch.empty(config.width))
        self.norm = LayerNorm(config.width, config.norm_eps, kernels)

    def forward(self, x: Tensor, given: Any, attend: Any) -> Tensor:
        y = super().forward(x, given, attend)
        near = activated(attend.whole_texts(self._convolved, x), self.activation, self.kernels)
        out: Tensor = self.norm(y + near)
        return out

    def _convolved(self, *parts: Tensor, hidden: Tensor | None) -> Tensor:
        (x,) = parts
        if hidden is not None:
            # No other token sees a padding.
            x = x.masked_fill(hidden[:, 0].any(-2)[..., None], 0)
        size = self.kernel.shape[-1]
        found = F.conv1d(x.transpose(1, 2), self.kernel, self.bias, padding=size // 2, groups=self.groups)
        return found.transpose(1, 2).contiguous()


class Deberta(Encoder):
    """Defines a DeBERTa over the given kernels; its parameters are not initialised."""

    config: DebertaConfig

    def __init__(self, config: DebertaConfig, kernels: Kernels, head: Head) -> None:
        layers = [self._layer(config, layer, kernels) for layer in range(config.layers)]
        super().__init__(config, kernels, layers, tied=head == "masked_lm" and config.tied_head)
        width = config.width
        self.embedding_norm = LayerNorm(width, config.norm_eps, kernels)
        self.project = Linear(config.stored_width, width, kernels) if config.stored_width != width else None
        self.distances = nn.Parameter(torch.empty(2 * config.span, width)) if config.relative else None
        normed = config.relative and config.norm_distances
        self.distance_norm = LayerNorm(width, config.norm_eps, kernels) if normed else None
        scores = partial(Classes, width, kernels=kernels)
        self.give_heads(
            task_heads(
                head,
                config.labels,
                masked_lm=self._masked_lm,
                whole=lambda labels: scores(labels, reads="first", dense=config.pooler_activation),
                each=lambda labels: scores(labels, reads="tokens"),
            )
        )

    @staticmethod
    def _layer(config: DebertaConfig, layer: int, kernels: Kernels) -> PostNormBlock:
        width, eps = config.width, config.norm_eps
        parts = (
            DisentangledAttention(config, kernels),
            LayerNorm(width, eps, kernels),
            PlainMLP(width, config.mlp_width, config.activation, kernels),
            LayerNorm(width, eps, kernels),
        )
        convolved = layer == 0 and config.kernel_size
        return ConvolvedBlock(config, kernels, *parts) if convolved else PostNormBlock(*parts)

    def _masked_lm(self) -> nn.Module:
        return transformed_masked_lm(self.config, self.kernels, self.embedding, self.config.activation)

    def embed(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Returns the first layer's inputs: the sums of the embeddings, projected, normalised."""
        x = self.embedded(tokens, positions, segments)
        if self.project is not None:
            x = self.project(x)
        assert self.embedding_norm is not None
        out: Tensor = self.embedding_norm(x)
        return out

    def layer_inputs(self, positions: Tensor, segments: Tensor) -> Sequence[Distances | None]:
        """Returns the vectors of the distances that occur, the same for each layer."""
        if self.distances is None:
            return [None] * self.depth
        rows = self.config.rows(longest(positions)).to(positions.device)
        first, last = int(rows[0]), int(rows[-1])
        vectors = self.distances[first : last + 1]
        if self.distance_norm is not None:
            vectors = self.distance_norm(vectors)
        return [Distances(vectors, rows - first)] * self.depth


LAYER = "encoder.layer.{i}."
SELF = f"{LAYER}attention.self."
BACKBONE: Modules = {
    "embedding": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "project": "embeddings.embed_proj",
    "embedding_norm": "embeddings.LayerNorm",
    "distance_norm": "encoder.LayerNorm",
    "layers.{i}.attn.out": f"{LAYER}attention.output.dense",
    "layers.{i}.attn_norm": f"{LAYER}attention.output.LayerNorm",
    "layers.{i}.mlp.up": f"{LAYER}intermediate.dense",
    "layers.{i}.mlp.down": f"{LAYER}output.dense",
    "layers.{i}.mlp_norm": f"{LAYER}output.LayerNorm",
    "layers.0.norm": "encoder.conv.LayerNorm",
}
EMBEDDING = "deberta.embeddings.word_embeddings.weight"


def _both(target: str, source: str, transform: Transform | None = None) -> list[Rule]:
    """Returns the rules of a parameter of the backbone, with its prefix and without."""
    return [rename(target, f"{prefix}{source}", transform) for prefix in ("deberta.", "")]


CONVOLUTION = (
    *_both("layers.0.kernel", "encoder.conv.conv.weight"),
    *_both("layers.0.bias", "encoder.conv.conv.bias"),
)
FIRST: Modules = {
    "layers.{i}.attn.position_key": f"{SELF}pos_proj",
    "layers.{i}.attn.position_query": f"{SELF}pos_q_proj",
}
SECOND: Modules = {
    "layers.{i}.attn.qkv": tuple(f"{SELF}{name}_proj" for name in ("query", "key", "value")),
    "layers.{i}.attn.position_key": f"{SELF}pos_key_proj",
    "layers.{i}.attn.position_query": f"{SELF}pos_query_proj",
}
OWN_HEAD: Modules = {
    "heads.masked_lm.dense": "lm_predictions.lm_head.dense",
    "heads.masked_lm.norm": "lm_predictions.lm_head.LayerNorm",
}
OUTPUTS: Modules = {
    "heads.masked_lm.dense": "cls.predictions.transform.dense",
    "heads.masked_lm.norm": "cls.predictions.transform.LayerNorm",
    "heads.masked_lm.out": "cls.predictions.decoder",
    "heads.classes.dense": "pooler.dense",
    "heads.choices.dense": "pooler.dense",
    "heads.classes.out": "classifier",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
IGNORED = (
    *("*embeddings.position_ids", "*embeddings.position_embeddings.weight"),
    *("cls.*", "lm_predictions.*", "mask_predictions.*", "pooler.*"),
)
"""Tensors of heads that a model lacks, and learned positions that only pretraining reads."""


def _names(config: DebertaConfig, attention: Modules, further: Sequence[Rule] = ()) -> Names:
    """Returns the names in a hub folder, with both spellings of the head of masked tokens."""
    own = [*module_rules(OWN_HEAD), rename("heads.masked_lm.bias", "lm_predictions.lm_head.bias")]
    if not config.legacy:
        # The scores of that form are products with the embedding, tied or not.
        own.append(rename("heads.masked_lm.out.weight", EMBEDDING))
    names = encoder_names(
        "deberta.",
        {**BACKBONE, **attention},
        OUTPUTS,
        masked_bias="cls.predictions.bias",
        ignored=IGNORED,
        tied=config.tied_head,
        further=[*_both("distances", "encoder.rel_embeddings.weight"), *CONVOLUTION, *further],
    )
    # The first of the rules that fit counts.
    rules = (*names.rules, *own) if config.legacy else (*own, *names.rules)
    return replace(names, rules=rules)


def _first_names(config: DebertaConfig) -> Names:
    by_head = grouped(config.heads, config.heads)
    return _names(
        config,
        FIRST,
        [
            *_both("layers.{i}.attn.qkv.weight", f"{SELF}in_proj.weight", by_head),
            *_both("layers.{i}.attn.query_bias", f"{SELF}q_bias"),
            *_both("layers.{i}.attn.value_bias", f"{SELF}v_bias"),
        ],
    )


def _later_names(config: DebertaConfig) -> Names:
    return _names(config, SECOND)


DEBERTA = Family(
    name="deberta",
    config=ConfigTable(
        DebertaConfig, fields=DEBERTA_FIELDS, fixed=(POOLER_WIDTH, PLAIN_HEADS), matrices=MATRICES
    ),
    build={head: partial(Deberta, head=head) for head in HEADS if head != "choices"},
    hub_names=_first_names,
)
DEBERTA2 = Family(
    name="deberta-v2",
    config=ConfigTable(DebertaConfig, fields=DEBERTA2_FIELDS, fixed=(POOLER_WIDTH,), matrices=MATRICES),
    build={head: partial(Deberta, head=head) for head in HEADS},
    hub_names=_later_names,
)
