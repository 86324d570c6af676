"""Defines ALBERT: BERT whose layers share their parameters, and whose embeddings are narrower.

Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language Representations (2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import COUNT, MOST, ConfigTable, Setting, Source
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import ABSOLUTE, HEADS, post_norm_layer
from decodery.models.encoders.encoder_config import ACTIVATIONS, fields
from decodery.models.encoders.factorised import FactorisedBert, FactorisedConfig
from decodery.models.encoders.names import Modules, encoder_names


@dataclass(frozen=True)
class AlbertConfig(FactorisedConfig):
    """Adds the groups of layers with the same parameters.

    Each of `layers` steps runs the `blocks` blocks of a group.
    """

    groups: int
    blocks: int

    @property
    def order(self) -> Sequence[tuple[int, int]]:
        """Returns the group and the place in it of each block that runs, in their order."""
        return [
            # In this order of operations: a rounding decides where a group ends.
            (int(step / (self.layers / self.groups)), block)
            for step in range(self.layers)
            for block in range(self.blocks)
        ]


class Albert(FactorisedBert):
    """Defines an ALBERT over the given kernels; its parameters are not initialised."""

    def __init__(self, config: AlbertConfig, kernels: Kernels, head: Head) -> None:
        super().__init__(config, kernels, head, shared_layers(config, kernels), projects=True)


def shared_layers(config: AlbertConfig, kernels: Kernels) -> Iterable[nn.Module]:
    """Returns the layers in their order, of which those with the same parameters are one module."""
    order = config.order
    own = {each: post_norm_layer(config, layer, kernels) for layer, each in enumerate(dict.fromkeys(order))}
    return [own[each] for each in order]


def block_names(config: AlbertConfig) -> Modules:
    """Returns the names of the layers' tensors, by the first layer that has them."""
    order = config.order
    found: dict[str, str | tuple[str, ...]] = {}
    for group, block in dict.fromkeys(order):
        ours = f"layers.{order.index((group, block))}."
        stored = f"encoder.albert_layer_groups.{group}.albert_layers.{block}."
        attention = f"{stored}attention."
        found |= {
            f"{ours}attn.qkv": tuple(f"{attention}{name}" for name in ("query", "key", "value")),
            f"{ours}attn.out": f"{attention}dense",
            f"{ours}attn_norm": f"{attention}LayerNorm",
            f"{ours}mlp.up": f"{stored}ffn",
            f"{ours}mlp.down": f"{stored}ffn_output",
            f"{ours}mlp_norm": f"{stored}full_layer_layer_norm",
        }
    return found


BACKBONE: Modules = {
    "embedding": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "projection": "encoder.embedding_hidden_mapping_in",
    **{f"heads.{head}.dense": "pooler" for head in ("next_sentence", "classes", "choices")},
}
OUTPUTS: Modules = {
    "heads.masked_lm.dense": "predictions.dense",
    "heads.masked_lm.norm": "predictions.LayerNorm",
    "heads.masked_lm.out": "predictions.decoder",
    "heads.next_sentence.out": "sop_classifier.classifier",
    "heads.classes.out": "classifier",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
IGNORED = ("*embeddings.position_ids", "*pooler.*", "predictions.*", "sop_classifier.*")


def hub_names(config: AlbertConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names(
        "albert.",
        {**BACKBONE, **block_names(config)},
        OUTPUTS,
        masked_bias="predictions.bias",
        ignored=IGNORED,
        tied=config.tied_head,
    )


def _at_most_layers(source: Source, name: str) -> None:
    if source[name] > source["layers"]:
        raise source.error(name, f"at most {source.key_of('layers')} ({source['layers']})")


def _few_blocks(source: Source, name: str) -> None:
    if source[name] * source["layers"] > MOST["layers"]:
        raise source.error(name, f"at most {MOST['layers'] // source['layers']}")


ALBERT = Family(
    name="albert",
    config=ConfigTable(
        AlbertConfig,
        fields=fields(
            table_width=Setting(COUNT, "embedding_size", default=128),
            groups=Setting(COUNT, "num_hidden_groups", default=1, checks=(_at_most_layers,)),
            blocks=Setting(COUNT, "inner_group_num", default=1, checks=(_few_blocks,)),
            activation=Setting(ACTIVATIONS, "hidden_act", default="gelu_tanh"),
        ),
        fixed=(ABSOLUTE,),
        # The vocabulary has rows of the embeddings' width.
        matrices=(("mlp_width",), ("heads", "head_dim")),
        own_layers="groups",
    ),
    build={head: partial(Albert, head=head) for head in HEADS if head != "next_sentence"},
    hub_names=hub_names,
)
