"""Defines ELECTRA: BERT with narrower embeddings, trained to find replaced tokens.

Clark et al., ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators (2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from decodery.models.config_reader import COUNT, ConfigTable, Fixed, Setting
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import ABSOLUTE, BACKBONE, NO_DECODER
from decodery.models.encoders.encoder_config import fields
from decodery.models.encoders.factorised import FactorisedBert, FactorisedConfig
from decodery.models.encoders.heads import Classes
from decodery.models.encoders.names import Modules, encoder_names

HEADS: tuple[Head, ...] = (
    *("states", "masked_lm", "replaced", "classes"),
    *("token_classes", "spans", "choices"),
)


class Electra(FactorisedBert):
    """Defines an ELECTRA over the given kernels; its parameters are not initialised."""

    pooling = "gelu"
    masked_activation = "gelu"

    def heads_of(self, head: Head) -> Mapping[str, nn.Module]:
        """Returns the heads of an architecture."""
        if head != "replaced":
            return super().heads_of(head)
        width, activation = self.config.width, self.config.activation
        return {head: Classes(width, 1, self.kernels, reads="tokens", dense=activation)}


INNER: Modules = {**BACKBONE, "projection": "embeddings_project"}
OUTPUTS: Modules = {
    "heads.masked_lm.dense": "generator_predictions.dense",
    "heads.masked_lm.norm": "generator_predictions.LayerNorm",
    "heads.masked_lm.out": "generator_lm_head",
    "heads.replaced.dense": "discriminator_predictions.dense",
    "heads.replaced.out": "discriminator_predictions.dense_prediction",
    "heads.classes.dense": "classifier.dense",
    "heads.classes.out": "classifier.out_proj",
    "heads.choices.dense": "sequence_summary.summary",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
IGNORED = ("*embeddings.position_ids", "generator_*", "discriminator_predictions.*")


def hub_names(config: FactorisedConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names("electra.", INNER, OUTPUTS, ignored=IGNORED, tied=config.tied_head)


ONLY = "{value}: other summaries of a text are not supported"
ELECTRA = Family(
    name="electra",
    config=ConfigTable(
        FactorisedConfig,
        fields=fields(table_width=Setting(COUNT, "embedding_size", default=128)),
        fixed=(
            ABSOLUTE,
            NO_DECODER,
            Fixed(hub="summary_type", value="first", wanted=ONLY),
            Fixed(hub="summary_use_proj", value=True, wanted=ONLY),
            Fixed(hub="summary_activation", value="gelu", wanted=ONLY),
        ),
        # The vocabulary has rows of the embeddings' width.
        matrices=(("mlp_width",), ("heads", "head_dim")),
    ),
    build={head: partial(Electra, head=head) for head in HEADS},
    hub_names=hub_names,
)
