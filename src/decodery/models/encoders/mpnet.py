"""Defines MPNet: RoBERTa with a learned bias of attention scores by distance, which its layers share.

Song et al., MPNet: Masked and Permuted Pre-training for Language Understanding (2020). The buckets of
distances are those of T5 (Raffel et al., 2020).
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.config_reader import NO_KEY, ConfigTable, Fixed, Setting
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.bert import BACKBONE
from decodery.models.encoders.encoder_config import MATRICES, POSITIONS, fields
from decodery.models.encoders.names import Modules, encoder_names
from decodery.models.encoders.roberta import (
    HEADS,
    IGNORED,
    OUTPUTS,
    POOLER,
    Roberta,
    RobertaConfig,
    length_behind_padding,
)
from decodery.models.layers.attention import Attend, TextAttend
from decodery.weights.names import rename

BUCKETS = 32
REACH = 128
"""The distance from which on all keys are in the last bucket of their side."""


class MPNet(Roberta):
    """Defines an MPNet over the given kernels; its parameters are not initialised."""

    def __init__(self, config: RobertaConfig, kernels: Kernels, head: Head) -> None:
        super().__init__(config, kernels, head)
        self.relative_bias = nn.Parameter(torch.empty(BUCKETS, config.heads))
        self.buckets: Tensor
        self.register_buffer("buckets", buckets_of_distances(), persistent=False)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        segments: Tensor,
        attend: TextAttend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
    ) -> Tensor:
        """Returns the last layer's states [..., width]; `EncoderModel.hidden` explains the arguments."""
        wide = torch.promote_types(self.relative_bias.dtype, torch.float32)
        table = self.relative_bias.to(wide)[self.buckets].T.contiguous()
        biased = BiasedAttend(attend, RelativeBias(table, REACH))
        given = self.layer_inputs(positions, segments)
        return self.through_layers(self.embed(tokens, positions, segments), given, biased, taps)


class BiasedAttend:
    """Computes attention whose scores have a bias by distance, the same one in all layers."""

    def __init__(self, attend: Attend, bias: RelativeBias) -> None:
        self.attend = attend
        self.bias = bias

    def __call__(
        self, layer: AttentionLayer, q: Tensor, k: Tensor | None = None, v: Tensor | None = None
    ) -> Tensor:
        return self.attend(replace(layer, bias=self.bias), q, k, v)

    def cross(self, layer: AttentionLayer, q: Tensor) -> Tensor:
        return self.attend.cross(layer, q)


def buckets_of_distances() -> Tensor:
    """Returns the bucket of each distance of a key to its query, from -REACH to REACH.

    Half of the buckets are for keys behind the query. Of each half, one half is for a distance each, and the
    other for ranges that grow by a constant factor up to REACH.
    """
    distances = torch.arange(-REACH, REACH + 1, device="cpu")
    side = BUCKETS // 2
    exact = side // 2
    far = distances.abs().clamp(min=1).float()
    # In this order of operations: a rounding decides to which bucket the end of a range belongs.
    ranges = (torch.log(far / exact) / math.log(REACH / exact) * (side - exact)).long() + exact
    found = torch.where(distances.abs() < exact, distances.abs(), ranges.clamp(max=side - 1))
    return found + side * (distances > 0)


LAYER = "encoder.layer.{i}.attention."
INNER: Modules = {
    **{ours: stored for ours, stored in BACKBONE.items() if ours != "segment"},
    "layers.{i}.attn.qkv": tuple(f"{LAYER}attn.{name}" for name in "qkv"),
    "layers.{i}.attn.out": f"{LAYER}attn.o",
    "layers.{i}.attn_norm": f"{LAYER}LayerNorm",
    **POOLER,
}


def hub_names(config: RobertaConfig) -> Names:
    """Returns the names with a prefix, which a model without heads leaves out."""
    return encoder_names(
        "mpnet.",
        INNER,
        OUTPUTS,
        masked_bias="lm_head.bias",
        ignored=IGNORED,
        tied=config.tied_head,
        further=[
            rename("relative_bias", f"{prefix}encoder.relative_attention_bias.weight")
            for prefix in ("mpnet.", "")
        ],
    )


MPNET = Family(
    name="mpnet",
    config=ConfigTable(
        RobertaConfig,
        fields={
            # Whatever the tokenizer pads with.
            "padding": Setting(NO_KEY, default=1),
            "positions": POSITIONS,
            **fields(
                context_length=Setting(NO_KEY, default=length_behind_padding),
                segments=Setting(NO_KEY, default=0),
            ),
        },
        fixed=(
            Fixed(
                hub="relative_attention_num_buckets",
                value=BUCKETS,
                wanted="{value}: other numbers of buckets are not supported",
            ),
        ),
        matrices=MATRICES,
    ),
    build={head: partial(MPNet, head=head) for head in HEADS},
    hub_names=hub_names,
)
