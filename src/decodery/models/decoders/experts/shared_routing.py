"""Defines the settings of mixtures of experts after DeepSeek-V3's, which several families have.

DeepSeek-AI, DeepSeek-V3 Technical Report (2024), section 2.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ModelError
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    POSITIVE,
    REQUIRED,
    Field,
    Setting,
    Source,
    divides,
)
from decodery.models.decoders.experts.moe import at_most, expert_fields

SIGMOID_IN_GGUF = 2
"""The number of the logistic function under `expert_gating_func`."""


@dataclass(frozen=True)
class SharedWidth(Field):
    """Says how wide the shared MLP is: the width of an expert times their number, which may be 0."""

    default: int

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("expert_shared_count",) if gguf else ("n_shared_experts",)

    def read(self, source: Source, name: str) -> int:
        key = source.key(self.keys(source.is_gguf)[0])
        default = 0 if source.is_gguf else self.default
        return int(source.keys.count(key, default, least=0) * source["expert_width"])

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {self.keys(gguf)[0]: value // config.expert_width}


@dataclass(frozen=True)
class DenseFirst(Field):
    """Says that the first layers have MLPs and the others experts; the value has a flag for each layer.

    `default` is the number of a config.json that lacks the key.
    """

    default: int

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("leading_dense_block_count",) if gguf else ("first_k_dense_replace",)

    def read(self, source: Source, name: str) -> tuple[bool, ...]:
        layers = source["layers"]
        key = source.key(self.keys(source.is_gguf)[0])
        dense = source.keys.count(key, 0 if source.is_gguf else self.default, least=0)
        if dense >= layers:
            raise source.keys.error(key, f"below the number of layers ({layers})")
        return (False,) * dense + (True,) * (layers - dense) if dense else ()

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        dense = value.index(True) if value else 0
        if not all(value[dense:]):
            raise ModelError("only the first layers can lack experts in this family")
        return {self.keys(gguf)[0]: dense}


@dataclass(frozen=True)
class NextTokenLayers(Field):
    """Says how many layers a model has without those that predict further tokens, which are not read.

    A GGUF file counts them with the others.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("block_count",) if gguf else ("num_hidden_layers",)

    def read(self, source: Source, name: str) -> int:
        key = source.key(self.keys(source.is_gguf)[0])
        layers = source.keys.count(key)
        further = source.keys.count(source.key("nextn_predict_layers"), 0, least=0) if source.is_gguf else 0
        if further >= layers:
            raise source.keys.error(source.key("nextn_predict_layers"), f"below {key} ({layers})")
        return int(layers - further)

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {self.keys(gguf)[0]: value}


def _fits_groups(source: Source, name: str) -> None:
    kept = source["experts"] // source["groups"] * source["kept_groups"]
    if kept < source["experts_per_token"]:
        wanted = f"such that the groups hold {source.key_of('experts_per_token')}"
        raise source.error(name, f"{wanted} ({source['experts_per_token']}) experts")


def _has_two(source: Source, name: str) -> None:
    if source["groups"] > 1 and source["experts"] // source["groups"] < 2:
        raise source.error(name, f"at most half of {source.key_of('experts')} ({source['experts']})")


def routed_fields(
    *, experts: int, per_token: int, groups: int, kept_groups: int, factor: float, dense: int
) -> Mapping[str, Field]:
    """Returns the settings of the experts and of their choice, with the defaults of a config.json."""
    names = "n_routed_experts", "num_local_experts"
    return {
        "layers": NextTokenLayers(),
        **expert_fields(names, experts, per_token),
        "probability": Setting(COUNT, default="sigmoid"),
        "renormalised": Setting(
            FLAG, "norm_topk_prob", "expert_weights_norm", default=True, gguf_default=False
        ),
        "factor": Setting(
            POSITIVE, "routed_scaling_factor", "expert_weights_scale", default=factor, gguf_default=1.0
        ),
        "groups": Setting(
            COUNT,
            "n_group",
            "expert_group_count",
            default=groups,
            gguf_default=1,
            checks=(divides("experts"), _has_two),
        ),
        "kept_groups": Setting(
            COUNT,
            "topk_group",
            "expert_group_used_count",
            default=kept_groups,
            gguf_default=1,
            checks=(at_most("groups"), _fits_groups),
        ),
        "best_of_group": Setting(COUNT, default=2),
        "corrected": Setting(FLAG, default=True),
        "shared_width": SharedWidth(1),
        "sparse": DenseFirst(dense),
        "mlp_width": Setting(COUNT, "intermediate_size", "feed_forward_length", default=REQUIRED),
    }
