"""Defines Seed-OSS: Llama with biases of queries, keys and values.

ByteDance Seed Team, Seed-OSS (2025).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import FLAG, ConfigTable, Setting, exists
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import (
    MATRICES,
    NULL_IS_QUOTIENT,
    SAME_VALUE_SIZE,
    head_size,
    if_missing,
)
from decodery.models.decoders.llama import BIASES, LLAMA_FIELDS, SILU, Llama, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names

SEED_GGUF = replace(GGUF, norms={"attn_norm": "attn_norm", "mlp_norm": "post_attention_norm"})

SEED_OSS = Family(
    name="seed_oss",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **BIASES,
            **if_missing(context=524288, heads=8),
            "head_dim": head_size(NULL_IS_QUOTIENT),
            "attention_bias": Setting(
                FLAG, "attention_bias", default=True, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "out_bias": Setting(
                FLAG, "attention_out_bias", default=False, gguf_default=exists("blk.0.attn_output.bias")
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=lambda config: decoder_names(SEED_GGUF, config),
    gguf="seed_oss",
)
