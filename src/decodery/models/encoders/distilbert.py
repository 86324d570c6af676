"""Defines DistilBERT: BERT without segments, with other names of its settings and tensors.

Sanh et al., DistilBERT, a distilled version of BERT (2019).
"""

from __future__ import annotations

from functools import partial

from decodery.models.config_reader import COUNT, NO_KEY, ConfigTable, Setting
from decodery.models.contract import Family, Names
from decodery.models.encoders.bert import Bert
from decodery.models.encoders.encoder_config import ACTIVATIONS, MATRICES, EncoderConfig, fields
from decodery.models.encoders.names import Modules, encoder_names
from decodery.models.encoders.roberta import HEADS


class DistilBert(Bert):
    """Defines a DistilBERT over the given kernels; its parameters are not initialised."""

    pooling = "relu"


LAYER = "transformer.layer.{i}."
BACKBONE: Modules = {
    "embedding": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "layers.{i}.attn.qkv": tuple(f"{LAYER}attention.{name}_lin" for name in "qkv"),
    "layers.{i}.attn.out": f"{LAYER}attention.out_lin",
    "layers.{i}.attn_norm": f"{LAYER}sa_layer_norm",
    "layers.{i}.mlp.up": f"{LAYER}ffn.lin1",
    "layers.{i}.mlp.down": f"{LAYER}ffn.lin2",
    "layers.{i}.mlp_norm": f"{LAYER}output_layer_norm",
}
OUTPUTS: Modules = {
    "heads.masked_lm.dense": "vocab_transform",
    "heads.masked_lm.norm": "vocab_layer_norm",
    "heads.masked_lm.out": "vocab_projector",
    "heads.classes.dense": "pre_classifier",
    "heads.classes.out": "classifier",
    "heads.choices.dense": "pre_classifier",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
IGNORED = ("*embeddings.position_ids", "vocab_*")


def hub_names(config: EncoderConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names("distilbert.", BACKBONE, OUTPUTS, ignored=IGNORED, tied=config.tied_head)


DISTILBERT = Family(
    name="distilbert",
    config=ConfigTable(
        EncoderConfig,
        fields=fields(
            width=Setting(COUNT, ("dim", "hidden_size")),
            layers=Setting(COUNT, ("n_layers", "num_hidden_layers")),
            heads=Setting(COUNT, ("n_heads", "num_attention_heads")),
            mlp_width=Setting(COUNT, ("hidden_dim", "intermediate_size")),
            activation=Setting(ACTIVATIONS, ("activation", "hidden_act"), default="gelu"),
            # The table of positions is stored, also one of sines.
            segments=Setting(NO_KEY, default=0),
            norm_eps=Setting(NO_KEY, default=1e-12),
        ),
        matrices=MATRICES,
    ),
    build={head: partial(DistilBert, head=head) for head in HEADS},
    hub_names=hub_names,
)
