"""Defines Granite with mixtures of experts, and with an MLP that all tokens share.

Granite Team, IBM, Granite 3.0 Language Models (2024), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from decodery.models.config_reader import COUNT_FROM_0, ConfigTable, Field, Setting
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    ExpertSpelling,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_fields,
    expert_rules,
)
from decodery.models.decoders.granite import MULTIPLIERS, Granite, GraniteConfig
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.weights.transforms import permuted


@dataclass(frozen=True, kw_only=True)
class GraniteMoEConfig(GraniteConfig, MoEConfig):
    """Holds the sizes and values of one Granite with experts."""


class GraniteMoE(Granite, MoELlama):
    """Defines a Granite with experts over the given kernels; its parameters are not initialised."""

    config: GraniteMoEConfig


SHARED = "shared_mlp.input_linear", "shared_mlp.output_linear"
IN_HUB = (
    ExpertSpelling(
        "block_sparse_moe.router.layer",
        ("block_sparse_moe.input_linear.weight",),
        "block_sparse_moe.output_linear.weight",
        SHARED,
    ),
    # The names that transformers 5 has in memory, and saves if asked to.
    ExpertSpelling(
        "block_sparse_moe.router",
        ("block_sparse_moe.experts.gate_up_proj",),
        "block_sparse_moe.experts.down_proj",
        SHARED,
    ),
)
IN_GGUF = (replace(GGUF_EXPERTS, shared_gate="", correction=""),)


def _hub_names(config: GraniteMoEConfig) -> Names:
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, IN_HUB))
    return replace(names, exact=exact_tensors(HUB.layer, IN_HUB))


def _gguf_names(config: GraniteMoEConfig) -> Names:
    rows = permuted(config.heads), permuted(config.kv_heads), None
    names = decoder_names(GGUF, config, qkv=rows, further=expert_rules(GGUF.layer, config, IN_GGUF))
    return replace(names, exact=exact_tensors(GGUF.layer, IN_GGUF))


def _family(name: str, further: Mapping[str, Field]) -> Family[GraniteMoEConfig]:
    return Family(
        name=name,
        config=ConfigTable(
            GraniteMoEConfig,
            fields={
                **LLAMA_FIELDS,
                **ATTENTION_BIASES,
                **MULTIPLIERS,
                **expert_fields("num_local_experts", 8, 2, width=None),
                **further,
            },
            fixed=(SAME_VALUE_SIZE, SILU),
            matrices=(*MATRICES, *EXPERT_MATRICES, *((each,) for each in further)),
        ),
        build={"causal": GraniteMoE},
        hub_names=_hub_names,
        gguf_names=_gguf_names,
        gguf="granitemoe",
    )


GRANITE_MOE = _family("granitemoe", {})
# GGUF files of both have one architecture.
GRANITE_MOE_SHARED = _family(
    "granitemoeshared",
    {
        "shared_width": Setting(
            COUNT_FROM_0, "shared_intermediate_size", "expert_shared_feed_forward_length", default=0
        )
    },
)
