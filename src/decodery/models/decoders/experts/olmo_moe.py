"""Defines OLMoE: a Llama with mixtures of experts that normalises whole queries and keys.

Muennighoff et al., OLMoE: Open Mixture-of-Experts Language Models (2024).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import NO_KEY, POSITIVE, ConfigTable, Fixed, Setting
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, if_missing
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_EXPERTS,
    HUB_STACKS,
    HubOnly,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_fields,
    expert_rules,
    renormalised,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU, rms_norm_eps
from decodery.models.decoders.names import GGUF, HUB, decoder_names

IN_HUB = HUB_EXPERTS, HUB_STACKS
IN_GGUF = (replace(GGUF_EXPERTS, shared=None, shared_gate="", correction=""),)


def _hub_names(config: MoEConfig) -> Names:
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, IN_HUB))
    return replace(names, exact=exact_tensors(HUB.layer, IN_HUB))


def _gguf_names(config: MoEConfig) -> Names:
    names = decoder_names(GGUF, config, further=expert_rules(GGUF.layer, config, IN_GGUF))
    return replace(names, exact=exact_tensors(GGUF.layer, IN_GGUF))


OLMOE = Family(
    name="olmoe",
    config=ConfigTable(
        MoEConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=4096),
            "norm_eps": rms_norm_eps(1e-5),
            **expert_fields(("num_experts", "num_local_experts"), 64, 8, width=None),
            "renormalised": renormalised(False, gguf=False),
            **ATTENTION_BIASES,
            "head_norms": Setting(NO_KEY, default=True),
            "joint_head_norms": Setting(NO_KEY, default=True),
            "clip": HubOnly(POSITIVE, "clip_qkv", default=None, gguf_default=None, none=(None,)),
            "clip_normed": Setting(NO_KEY, default=True),
        },
        fixed=(
            SAME_VALUE_SIZE,
            SILU,
            Fixed(gguf="attention.clamp_kqv", accepted=(0,), wanted="left out"),
        ),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": MoELlama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="olmoe",
)
