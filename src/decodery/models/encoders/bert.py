"""Defines BERT: a post-norm encoder with learned positions and segments.

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import ConfigTable, Fixed
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.encoder import Encoder
from decodery.models.encoders.encoder_config import FIELDS, MATRICES, EncoderConfig
from decodery.models.encoders.heads import Classes, task_heads, transformed_masked_lm
from decodery.models.encoders.names import Modules, encoder_names, gguf_encoder_names
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm

HEADS: tuple[Head, ...] = (
    *("states", "masked_lm", "next_sentence", "pretraining"),
    *("classes", "token_classes", "spans", "choices"),
)


class Bert(Encoder):
    """Defines a BERT over the given kernels; its parameters are not initialised.

    `layers` are BERT's unless they are given. `pooling` is the activation of what heads of whole texts
    compute from the first token's state, and `masked_activation` that of the head of masked tokens (None: the
    layers').
    """

    pooling: ClassVar[Literal["tanh"] | Activation] = "tanh"
    masked_activation: ClassVar[Activation | None] = None

    def __init__(
        self,
        config: EncoderConfig,
        kernels: Kernels,
        head: Head,
        layers: Iterable[nn.Module] | None = None,
    ) -> None:
        if layers is None:
            layers = [post_norm_layer(config, layer, kernels) for layer in range(config.layers)]
        masked = head in ("masked_lm", "pretraining")
        super().__init__(config, kernels, layers, tied=masked and config.tied_head)
        self.give_heads(self.heads_of(head))

    def heads_of(self, head: Head) -> Mapping[str, nn.Module]:
        """Returns the heads of an architecture; those of whole texts read the first token's state."""
        config, kernels = self.config, self.kernels
        pooled = partial(Classes, config.width, kernels=kernels, reads="first", dense=self.pooling)
        each = partial(Classes, config.width, kernels=kernels, reads="tokens")
        if head == "next_sentence":
            return {head: pooled(2)}
        if head == "pretraining":
            return {"masked_lm": self.masked_lm(), "next_sentence": pooled(2)}
        return task_heads(head, config.labels, masked_lm=self.masked_lm, whole=pooled, each=each)

    def masked_lm(self) -> nn.Module:
        """Returns the head of masked tokens."""
        activation = self.masked_activation or self.config.activation
        return transformed_masked_lm(self.config, self.kernels, self.embedding, activation)


def post_norm_layer(config: EncoderConfig, layer: int, kernels: Kernels) -> PostNormBlock:
    """Returns a layer of BERT: attention and MLP with biases, each with a norm after it."""
    width, eps = config.width, config.norm_eps
    return PostNormBlock(
        Attention(config.attention(layer), width, kernels, bias=True),
        LayerNorm(width, eps, kernels),
        PlainMLP(width, config.mlp_width, config.activation, kernels),
        LayerNorm(width, eps, kernels),
    )


LAYER = "encoder.layer.{i}."
ATTENTION = f"{LAYER}attention."
BACKBONE: Modules = {
    "embedding": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "layers.{i}.attn.qkv": tuple(f"{ATTENTION}self.{name}" for name in ("query", "key", "value")),
    "layers.{i}.attn.out": f"{ATTENTION}output.dense",
    "layers.{i}.attn_norm": f"{ATTENTION}output.LayerNorm",
    "layers.{i}.mlp.up": f"{LAYER}intermediate.dense",
    "layers.{i}.mlp.down": f"{LAYER}output.dense",
    "layers.{i}.mlp_norm": f"{LAYER}output.LayerNorm",
}
POOLED = ("next_sentence", "classes", "choices")
POOLER: Modules = {f"heads.{head}.dense": "pooler.dense" for head in POOLED}
OUTPUTS: Modules = {
    "heads.masked_lm.dense": "cls.predictions.transform.dense",
    "heads.masked_lm.norm": "cls.predictions.transform.LayerNorm",
    "heads.masked_lm.out": "cls.predictions.decoder",
    "heads.next_sentence.out": "cls.seq_relationship",
    "heads.classes.out": "classifier",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
IGNORED = ("*embeddings.position_ids", "*pooler.dense.*", "cls.*")
"""Tensors that a model without their head leaves unused, and a buffer of older versions."""


def hub_names(config: EncoderConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names(
        "bert.",
        {**BACKBONE, **POOLER},
        OUTPUTS,
        masked_bias="cls.predictions.bias",
        ignored=IGNORED,
        tied=config.tied_head,
    )


GGUF_BACKBONE: Modules = {
    "embedding": "token_embd",
    "position": "position_embd",
    "segment": "token_types",
    "embedding_norm": "token_embd_norm",
    "layers.{i}.attn.qkv": tuple(f"blk.{{i}}.attn_{name}" for name in "qkv"),
    "layers.{i}.attn.out": "blk.{i}.attn_output",
    "layers.{i}.attn_norm": "blk.{i}.attn_output_norm",
    "layers.{i}.mlp.up": "blk.{i}.ffn_up",
    "layers.{i}.mlp.down": "blk.{i}.ffn_down",
    "layers.{i}.mlp_norm": "blk.{i}.layer_output_norm",
    "heads.classes.dense": "cls",
    "heads.classes.out": "cls.output",
}


def gguf_names(config: EncoderConfig) -> Names:
    """Returns the names in a GGUF file, in which queries, keys and values may be one matrix.

    RoBERTa and XLM-R are a BERT there, without the positions that they do not use.
    """
    fused: Modules = {**GGUF_BACKBONE, "layers.{i}.attn.qkv": "blk.{i}.attn_qkv"}
    return gguf_encoder_names(GGUF_BACKBONE, fused)


ABSOLUTE = Fixed(
    hub="position_embedding_type", value="absolute", wanted="'absolute': other positions are not supported"
)
NO_DECODER = Fixed(hub="is_decoder", value=False, wanted="false: the model must see texts from both sides")

BERT = Family(
    name="bert",
    config=ConfigTable(EncoderConfig, fields=FIELDS, fixed=(ABSOLUTE, NO_DECODER), matrices=MATRICES),
    build={head: partial(Bert, head=head) for head in HEADS},
    hub_names=hub_names,
    gguf_names=gguf_names,
    gguf="bert",
)
