"""Defines ERNIE 4.5 with mixtures of experts, of which a bias chooses and softmaxes weigh.

ERNIE Team, Baidu, ERNIE 4.5 Technical Report (2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from decodery.errors import ModelError
from decodery.models.config_reader import COUNT, FLAG, REQUIRED, ConfigTable, Fixed, Setting, Source
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, tied_head
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_EXPERTS,
    HUB_STACKS,
    MoEConfig,
    MoELlama,
    SparseField,
    at_most,
    exact_tensors,
    expert_fields,
    expert_rules,
)
from decodery.models.decoders.experts.shared_routing import SharedWidth
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU
from decodery.models.decoders.names import GGUF, HUB, Spelling, decoder_names
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.weights.transforms import Transform, permuted

SHARED = "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"
IN_HUB = (
    replace(
        HUB_EXPERTS,
        shared=SHARED,
        correction="mlp.moe_statics.e_score_correction_bias",
        choice=Transform(lambda stored: stored.flatten(), lambda ours: ours[None]),
    ),
    HUB_STACKS,
)
IN_GGUF = (replace(GGUF_EXPERTS, shared_gate=""),)


@dataclass(frozen=True)
class SparsePart(SparseField):
    """Says which layers have experts: every `moe_layer_interval`-th one from a first to a last layer."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("moe_layer_interval", "moe_layer_start_index", "moe_layer_end_index")

    def read(self, source: Source, name: str) -> tuple[bool, ...]:
        if source.is_gguf:
            return super().read(source, name)
        keys, layers = source.keys, source["layers"]
        step, start = keys.count("moe_layer_interval", 1), keys.count("moe_layer_start_index", 1, least=0)
        end = keys.values.get("moe_layer_end_index")
        end = layers - 1 if end in (None, -1) else keys.count("moe_layer_end_index", least=0)
        found = tuple((i + 1) % step == 0 and start <= i <= end for i in range(layers))
        if not any(found):
            raise ModelError(f"{keys.source}: no layer has experts")
        return () if all(found) else found

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        flags = value or (True,) * config.layers
        start, end = flags.index(True), config.layers - flags[::-1].index(True) - 1
        for step in range(1, config.layers + 1):
            if flags == tuple((i + 1) % step == 0 and start <= i <= end for i in range(config.layers)):
                break
        else:
            raise ModelError("the layers with experts of this family have one distance from each other")
        if not gguf:
            ends = {"moe_layer_start_index": start, "moe_layer_end_index": end}
            return {"moe_layer_interval": step, **ends}
        if end + step < config.layers:
            raise ModelError("a GGUF file of this family has experts up to the last layers")
        return {"leading_dense_block_count": start, "interleave_moe_layer_step": step}


@dataclass(frozen=True)
class SharedExperts(SharedWidth):
    """Says how wide the shared MLP is, under the keys of this family."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("expert_shared_count",) if gguf else ("moe_num_shared_experts",)


def _names(spelling: Spelling, config: MoEConfig, experts: Sequence[Any], ignored: str) -> Names:
    """Returns the names; both formats store queries and keys for a rotation of neighbouring pairs."""
    rows = permuted(config.heads), permuted(config.kv_heads), None
    further = expert_rules(spelling.layer, config, experts)
    names = decoder_names(spelling, config, qkv=rows, further=further)
    return replace(names, ignored=(*names.ignored, ignored), exact=exact_tensors(spelling.layer, experts))


ERNIE_MOE = Family(
    name="ernie4_5_moe",
    config=ConfigTable(
        MoEConfig,
        fields={
            **LLAMA_FIELDS,
            "norm_eps": replace(LLAMA_FIELDS["norm_eps"], default=1e-5),  # type: ignore[type-var]
            "tied_head": tied_head(True),
            **expert_fields("moe_num_experts", 64, 6),
            "experts_per_token": Setting(
                COUNT,
                ("moe_k", "num_experts_per_tok"),
                "expert_used_count",
                default=6,
                gguf_default=REQUIRED,
                checks=(at_most("experts"),),
            ),
            "corrected": Setting(FLAG, default=True),
            "shared_width": SharedExperts(2),
            "sparse": SparsePart(),
            "rope": RopeField(default=Rope(5e5)),
        },
        fixed=(
            SAME_VALUE_SIZE,
            SILU,
            Fixed(hub="use_bias", value=False, wanted="false, since no biases are read"),
        ),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": MoELlama},
    # Tensors of MTP predict further tokens.
    hub_names=lambda config: _names(HUB, config, IN_HUB, "model.mtp_*"),
    gguf_names=lambda config: _names(GGUF, config, IN_GGUF, "blk.*.nextn.*"),
    gguf="ernie4_5-moe",
)
