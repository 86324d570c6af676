"""Defines Qwen 2 and 3 with mixtures of experts.

Qwen Team, Qwen1.5-MoE: Matching 7B Model Performance with 1/3 Activated Parameters (2024) and Qwen3 Technical
Report (2025).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import (
    COUNT,
    FLAG,
    NO_KEY,
    ConfigTable,
    Setting,
    Source,
    quotient,
    rows_in_layers,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, head_size, if_missing
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_EXPERTS,
    HUB_STACKS,
    MoEConfig,
    MoELlama,
    SparseField,
    exact_tensors,
    expert_fields,
    expert_rules,
    renormalised,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.window_config import WindowField

SHARED = "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"
IN_HUB = replace(HUB_EXPERTS, shared=SHARED, shared_gate="mlp.shared_expert_gate"), HUB_STACKS
IN_GGUF = (replace(GGUF_EXPERTS, correction=""),)


def _hub_names(config: MoEConfig) -> Names:
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, IN_HUB))
    return replace(names, exact=exact_tensors(HUB.layer, IN_HUB))


def _gguf_names(config: MoEConfig) -> Names:
    names = decoder_names(GGUF, config, further=expert_rules(GGUF.layer, config, IN_GGUF))
    return replace(names, exact=exact_tensors(GGUF.layer, IN_GGUF))


def _even_and_early(source: Source, layer: int) -> bool:
    """True if a layer of Qwen2-MoE has a window: the even ones below `max_window_layers` do."""
    return layer % 2 == 0 and layer < source.keys.count("max_window_layers", 28, least=0)


QWEN2_MOE = Family(
    name="qwen2moe",
    config=ConfigTable(
        MoEConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=32768, heads=16),
            **expert_fields("num_experts", 60, 4, width_default=1408),
            "renormalised": renormalised(False, gguf=False),
            "attention_bias": Setting(FLAG, "qkv_bias", default=True),
            "shared_width": Setting(
                COUNT,
                "shared_expert_intermediate_size",
                "expert_shared_feed_forward_length",
                default=5632,
                gguf_default=rows_in_layers("blk.{i}.ffn_gate_shexp.weight"),
            ),
            "shared_gated": Setting(NO_KEY, default=True),
            "sparse": SparseField(),
            "windows": WindowField(
                windowed=_even_and_early, default=4096, zero_is_none=True, enabled_by="use_sliding_window"
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=(*MATRICES, *EXPERT_MATRICES, ("shared_width",)),
    ),
    build={"causal": MoELlama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="qwen2moe",
)

QWEN3_MOE = Family(
    name="qwen3moe",
    config=ConfigTable(
        MoEConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=32768, heads=4),
            "head_dim": head_size(quotient("width", "heads")),
            **expert_fields(("num_experts", "num_local_experts"), 128, 8, width_default=768),
            "renormalised": renormalised(False, gguf=True),
            **ATTENTION_BIASES,
            "head_norms": Setting(NO_KEY, default=True),
            "sparse": SparseField(),
            "windows": WindowField(
                named=False, default=4096, zero_is_none=True, enabled_by="use_sliding_window"
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": MoELlama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="qwen3moe",
)
