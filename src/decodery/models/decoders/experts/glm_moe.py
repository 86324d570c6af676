"""Defines GLM-4.5: a partly rotated Llama whose later layers have mixtures of experts.

GLM-4.5 Team, GLM-4.5: Agentic, Reasoning, and Coding Foundation Models (2025).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import FLAG, ConfigTable, Fixed, Setting, exists, quotient
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, head_size
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_EXPERTS,
    HUB_STACKS,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_rules,
)
from decodery.models.decoders.experts.shared_routing import SIGMOID_IN_GGUF, routed_fields
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.rope_config import RopeField, RotatedSize

SHARED = "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"
CORRECTION = "mlp.gate.e_score_correction_bias"
IN_HUB = replace(HUB_EXPERTS, shared=SHARED, correction=CORRECTION), HUB_STACKS
IN_GGUF = (replace(GGUF_EXPERTS, shared_gate=""),)
GGUF_NAMES = replace(GGUF, norms={**GGUF.norms, "mlp_norm": "post_attention_norm"})
SIGMOID = Fixed(
    gguf="expert_gating_func", value=SIGMOID_IN_GGUF, wanted="{value}, the logistic function of each score"
)


def _hub_names(config: MoEConfig) -> Names:
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, IN_HUB))
    # The layers behind the last one predict further tokens.
    ignored = *names.ignored, f"model.layers.{config.layers}.*"
    return replace(names, ignored=ignored, exact=exact_tensors(HUB.layer, IN_HUB))


def _gguf_names(config: MoEConfig) -> Names:
    names = decoder_names(GGUF_NAMES, config, further=expert_rules(GGUF.layer, config, IN_GGUF))
    ignored = *names.ignored, f"blk.{config.layers}.*"
    return replace(names, ignored=ignored, exact=exact_tensors(GGUF.layer, IN_GGUF))


GLM_MOE = Family(
    name="glm4moe",
    config=ConfigTable(
        MoEConfig,
        fields={
            **{name: field for name, field in LLAMA_FIELDS.items() if name != "rope"},
            "head_dim": head_size(quotient("width", "heads")),
            **routed_fields(experts=128, per_token=8, groups=1, kept_groups=1, factor=1.0, dense=1),
            "attention_bias": Setting(
                FLAG, "attention_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "out_bias": Setting(FLAG, default=False),
            "head_norms": Setting(
                FLAG, "use_qk_norm", default=False, gguf_default=exists("blk.0.attn_q_norm.weight")
            ),
            "rotated_size": RotatedSize(0.5),
            "rope": RopeField(rotated="rotated_size"),
        },
        fixed=(SAME_VALUE_SIZE, SILU, SIGMOID),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": MoELlama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="glm4moe",
)
