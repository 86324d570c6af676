"""Defines ERNIE 4.5: Llama whose hub checkpoints rotate neighbouring pairs.

Baidu-ERNIE-Team, ERNIE 4.5 Technical Report (2025).
"""

from __future__ import annotations

from decodery.models.config_reader import FLAG, NO_KEY, ConfigTable, Setting, exists, value_of
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import (
    MATRICES,
    NULL_IS_QUOTIENT,
    SAME_VALUE_SIZE,
    head_size,
    if_missing,
    tied_head,
)
from decodery.models.decoders.llama import (
    LLAMA_FIELDS,
    NO_EXPERTS,
    SILU,
    Llama,
    LlamaConfig,
    gguf_names,
    rms_norm_eps,
)
from decodery.models.decoders.names import HUB, decoder_names
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.weights.transforms import permuted


def _hub_names(config: LlamaConfig) -> Names:
    return decoder_names(HUB, config, qkv=(permuted(config.heads), permuted(config.kv_heads), None))


ERNIE = Family(
    name="ernie4_5",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=131072, heads=2),
            "head_dim": head_size(NULL_IS_QUOTIENT),
            "norm_eps": rms_norm_eps(1e-5),
            "tied_head": tied_head(True),
            "attention_bias": Setting(
                FLAG, "use_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "out_bias": Setting(NO_KEY, default=value_of("attention_bias")),
            "mlp_bias": Setting(NO_KEY, default=value_of("attention_bias")),
            "rope": RopeField(default=Rope(5e5)),
        },
        fixed=(SAME_VALUE_SIZE, SILU, NO_EXPERTS),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=_hub_names,
    gguf_names=gguf_names,
    gguf="ernie4_5",
)
