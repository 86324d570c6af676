"""Defines GLM-4: Llama that rotates neighbouring pairs of half a head; that of April 2025 has more norms.

Team GLM, ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All Tools (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from decodery.models.config_reader import FLAG, NO_KEY, ConfigTable, Field, Setting, Source
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import (
    FIELDS,
    MATRICES,
    NULL_IS_QUOTIENT,
    SAME_VALUE_SIZE,
    head_size,
    if_missing,
)
from decodery.models.decoders.llama import SILU, Llama, LlamaConfig, rms_norm_eps
from decodery.models.decoders.names import GGUF, GGUF_FUSED, HUB, Spelling, decoder_names, either
from decodery.models.rope_config import RopeField, RotatedSize
from decodery.weights.transforms import on_first, permuted

FUSED_MLP = replace(HUB, gate_up=("mlp.gate_up_proj",))
# The norm before the MLP is named as if it were the one after attention.
SANDWICH_HUB = {
    "attn_norm": "input_layernorm",
    "attn_post_norm": "post_self_attn_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_mlp_layernorm",
}
SANDWICH_GGUF = {
    "attn_norm": "attn_norm",
    "attn_post_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "mlp_post_norm": "post_ffw_norm",
}


def _has_bias(source: Source) -> bool:
    return any(source.has_tensor(f"blk.0.{name}.bias") for name in ("attn_q", "attn_qkv"))


GLM_FIELDS: Mapping[str, Field] = {
    **FIELDS,
    **if_missing(context=131072, heads=2),
    "head_dim": head_size(NULL_IS_QUOTIENT),
    "norm_eps": rms_norm_eps(1.5625e-7),
    "rotated_size": RotatedSize(0.5),
    "rope": RopeField(rotated="rotated_size"),
    "attention_bias": Setting(FLAG, "attention_bias", default=True, gguf_default=_has_bias),
}


def _names(spelling: Spelling, config: LlamaConfig) -> Names:
    """Returns the names with rows of queries and keys for a rotation of pairs, apart or fused."""
    queries, keys = (permuted(heads, config.rotated_size) for heads in (config.heads, config.kv_heads))
    if len(spelling.qkv) == 3:
        return decoder_names(spelling, config, qkv=(queries, keys, None))
    both = config.heads + config.kv_heads
    rows = both * config.head_dim
    return decoder_names(spelling, config, qkv=(on_first(rows, permuted(both, config.rotated_size)),))


def _family(
    name: str, gguf: str, fields: Mapping[str, Field], hub: Mapping[str, str], stored: Mapping[str, str]
) -> Family[LlamaConfig]:
    apart, fused = (replace(each, norms=stored, gate_up=("ffn_up",), up="") for each in (GGUF, GGUF_FUSED))
    return Family(
        name=name,
        config=ConfigTable(LlamaConfig, fields=fields, fixed=(SAME_VALUE_SIZE, SILU), matrices=MATRICES),
        build={"causal": Llama},
        hub_names=lambda config: _names(replace(FUSED_MLP, norms=hub), config),
        gguf_names=lambda config: either(_names(apart, config), _names(fused, config)),
        gguf=gguf,
    )


GLM = _family("glm", "chatglm", GLM_FIELDS, HUB.norms, GGUF.norms)
GLM4 = _family(
    "glm4", "glm4", {**GLM_FIELDS, "norms": Setting(NO_KEY, default="both")}, SANDWICH_HUB, SANDWICH_GGUF
)
