"""Defines InternLM 3: Llama whose biases have keys of their own.

Cai et al., InternLM2 Technical Report (2024).
"""

from __future__ import annotations

from decodery.models.config_reader import FLAG, ConfigTable, Setting, exists, value_of
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, Llama, LlamaConfig, gguf_names
from decodery.models.decoders.names import HUB, decoder_names

INTERNLM3 = Family(
    name="internlm3",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            "attention_bias": Setting(
                FLAG, "qkv_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "out_bias": Setting(FLAG, "bias", default=False, gguf_default=exists("blk.0.attn_output.bias")),
            "mlp_bias": Setting(
                FLAG, default=value_of("out_bias"), gguf_default=exists("blk.0.ffn_gate.bias")
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="llama",
)
