"""Defines RoBERTa: BERT whose positions count from the row behind the padding id's.

Liu et al., RoBERTa (2019). XLM-RoBERTa (Conneau et al., 2020) and CamemBERT (Martin et al., 2020) differ in
their vocabularies alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from decodery.models.config_reader import COUNT_FROM_0, NO_KEY, ConfigTable, Setting, Source
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import ABSOLUTE, BACKBONE, NO_DECODER, Bert
from decodery.models.encoders.encoder_config import MATRICES, POSITIONS, EncoderConfig, fields
from decodery.models.encoders.names import Modules, encoder_names

HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes", "spans", "choices")


@dataclass(frozen=True)
class RobertaConfig(EncoderConfig):
    """Adds the id of padding, whose row of the table of positions is that of padding inside a text too."""

    padding: int


class Roberta(Bert):
    """Defines a RoBERTa over the given kernels; its parameters are not initialised."""

    config: RobertaConfig
    masked_activation = "gelu"

    def text_positions(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns the positions of whole texts: from that behind the padding id, which padding ids have.

        `keep` is False at padding.
        """
        real = tokens != self.config.padding
        if keep is not None:
            real = real & keep.bool()
        return real.long().cumsum(-1) * real + self.config.padding


OUTPUTS: Modules = {
    "heads.masked_lm.dense": "lm_head.dense",
    "heads.masked_lm.norm": "lm_head.layer_norm",
    "heads.masked_lm.out": "lm_head.decoder",
    "heads.classes.dense": "classifier.dense",
    "heads.classes.out": "classifier.out_proj",
    "heads.choices.out": "classifier",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}
POOLER: Modules = {"heads.choices.dense": "pooler.dense"}
IGNORED = ("*embeddings.position_ids", "*pooler.dense.*", "lm_head.*")


def hub_names(config: EncoderConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names(
        "roberta.",
        {**BACKBONE, **POOLER},
        OUTPUTS,
        masked_bias="lm_head.bias",
        ignored=IGNORED,
        tied=config.tied_head,
    )


def length_behind_padding(source: Source) -> int:
    """Returns the number of positions behind the padding id's; raises `ModelError` if there are none."""
    rows: int = source["positions"] - source["padding"] - 1
    if rows < 1:
        raise source.error("positions", f"more than {source['padding'] + 1}: positions follow the padding id")
    return rows


ROBERTA = Family(
    name="roberta",
    config=ConfigTable(
        RobertaConfig,
        fields={
            "padding": Setting(COUNT_FROM_0, "pad_token_id", default=1),
            "positions": POSITIONS,
            **fields(context_length=Setting(NO_KEY, default=length_behind_padding)),
        },
        fixed=(ABSOLUTE, NO_DECODER),
        matrices=MATRICES,
    ),
    build={head: partial(Roberta, head=head) for head in HEADS},
    hub_names=hub_names,
)
