"""Defines Phi 3, 3.5 and 4: Llama with fused matrices, partial rotation and one scaling for long texts.

Abdin et al., Phi-3 (2024) and Phi-4 (2024); Ding et al., LongRoPE (2024).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import ConfigTable
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import FIELDS, MATRICES, SAME_VALUE_SIZE, if_missing
from decodery.models.decoders.llama import SILU, Llama, LlamaConfig, rms_norm_eps
from decodery.models.decoders.names import GGUF, GGUF_FUSED, HUB, decoder_names, either
from decodery.models.rope_config import RopeField, RotatedSize
from decodery.models.window_config import WindowField

FUSED_HUB = replace(HUB, qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))

PHI3 = Family(
    name="phi3",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **FIELDS,
            **if_missing(context=4096),
            "norm_eps": rms_norm_eps(1e-5),
            "rotated_size": RotatedSize(1.0),
            # "yarn" was the name of another version of the same scaling.
            "rope": RopeField(
                rotated="rotated_size", renamed={"su": "longrope", "yarn": "longrope"}, original_length=4096
            ),
            "windows": WindowField(named=False, gguf="attention.sliding_window", zero_is_none=True),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(FUSED_HUB, config),
    gguf_names=lambda config: either(
        decoder_names(replace(GGUF_FUSED, gate_up=("ffn_up",)), config),
        decoder_names(replace(GGUF, gate_up=("ffn_up",)), config),
    ),
    gguf="phi3",
)
