"""Defines Mixtral: Mistral with a mixture of experts in each layer.

Jiang et al., Mixtral of Experts (2024).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import ConfigTable
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, if_missing
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    GGUF_EXPERTS_APART,
    HUB_STACKS,
    ExpertSpelling,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_fields,
    expert_rules,
)
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, rms_norm_eps
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField
from decodery.weights.transforms import permuted

OWN = ExpertSpelling(
    "block_sparse_moe.gate",
    ("block_sparse_moe.experts.{e}.w1.weight", "block_sparse_moe.experts.{e}.w3.weight"),
    "block_sparse_moe.experts.{e}.w2.weight",
)


def _hub_names(config: MoEConfig) -> Names:
    spellings = OWN, HUB_STACKS
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, spellings))
    return replace(names, exact=exact_tensors(HUB.layer, spellings))


def _gguf_names(config: MoEConfig) -> Names:
    spellings = replace(GGUF_EXPERTS, shared=None), GGUF_EXPERTS_APART
    rows = permuted(config.heads), permuted(config.kv_heads), None
    names = decoder_names(GGUF, config, qkv=rows, further=expert_rules(GGUF.layer, config, spellings))
    return replace(names, exact=exact_tensors(GGUF.layer, spellings))


MIXTRAL = Family(
    name="mixtral",
    config=ConfigTable(
        MoEConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=131072, heads=8),
            "norm_eps": rms_norm_eps(1e-5),
            **expert_fields("num_local_experts", 8, 2, width=None),
            "rope": RopeField(default=Rope(1e6)),
            "windows": WindowField(named=False),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": MoELlama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="llama",
)
