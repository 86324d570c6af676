"""Defines InternLM 2 and 3: Llama whose tensors are stored in another way, or whose biases have other keys.

Cai et al., InternLM2 Technical Report (2024).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import FLAG, NO_KEY, ConfigTable, Setting, exists, value_of
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, Llama, LlamaConfig, gguf_names
from decodery.models.decoders.names import HUB, decoder_names
from decodery.weights.transforms import grouped

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
                NO_KEY, default=value_of("out_bias"), gguf_default=exists("blk.0.ffn_gate.bias")
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

INTERNLM2_HUB = replace(
    HUB,
    embedding="model.tok_embeddings",
    norms={"attn_norm": "attention_norm", "mlp_norm": "ffn_norm"},
    qkv=("attention.wqkv",),
    out="attention.wo",
    gate_up=("feed_forward.w1", "feed_forward.w3"),
    down="feed_forward.w2",
    head="output",
)


def _internlm2_names(config: LlamaConfig) -> Names:
    return decoder_names(INTERNLM2_HUB, config, qkv=(grouped(config.heads, config.kv_heads),))


INTERNLM2 = Family(
    name="internlm2",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            "attention_bias": Setting(FLAG, "bias", default=True, gguf_default=exists("blk.0.attn_q.bias")),
            "out_bias": Setting(
                NO_KEY, default=value_of("attention_bias"), gguf_default=exists("blk.0.attn_output.bias")
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=_internlm2_names,
    gguf_names=gguf_names,
    gguf="internlm2",
)
