"""Defines OLMo: Llama with a LayerNorm without parameters, and from OLMo 2 on with norms in other places.

OLMo 2 and 3 have them after attention and MLP, and over all queries and all keys. Groeneveld et al., OLMo
(2024); Team OLMo, 2 OLMo 2 Furious (2024) and Olmo 3 (2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import NO_KEY, POSITIVE, ConfigTable, Field, Setting
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import (
    ATTENTION_BIASES,
    LLAMA_FIELDS,
    SILU,
    Llama,
    LlamaConfig,
    rms_norm_eps,
)
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.norm import FixedLayerNorm
from decodery.models.rope_config import KindOfLayer, RopeByKind
from decodery.models.window_config import FULL, WINDOWED, WindowField
from decodery.weights.transforms import permuted

HEAD_NORMS = {"attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm"}
NORM_AFTER_HUB = replace(
    HUB,
    norms={
        "attn_post_norm": "post_attention_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
        **HEAD_NORMS,
    },
)
NORM_AFTER_GGUF = replace(
    GGUF,
    norms={
        "attn_post_norm": "post_attention_norm",
        "mlp_post_norm": "post_ffw_norm",
        "attn.q_norm": "attn_q_norm",
        "attn.k_norm": "attn_k_norm",
    },
)


class Olmo(Llama):
    """Defines an OLMo 1 over the given kernels; its parameters are not initialised."""

    def width_norm(self, config: LlamaConfig, kernels: Kernels) -> nn.Module:
        return FixedLayerNorm(config.width, config.norm_eps, kernels)


OLMO = Family(
    name="olmo",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **ATTENTION_BIASES,
            "norm_eps": Setting(POSITIVE, gguf="attention.layer_norm_epsilon", default=1e-5),
            "clip": Setting(POSITIVE, "clip_qkv", "attention.clamp_kqv", default=None, none=(None,)),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Olmo},
    hub_names=lambda config: decoder_names(replace(HUB, norms={}, norm=""), config),
    gguf_names=lambda config: decoder_names(
        replace(GGUF, norms={}, norm=""),
        config,
        qkv=(permuted(config.heads), permuted(config.kv_heads), None),
    ),
    gguf="olmo",
)

OLMO2_FIELDS: Mapping[str, Field] = {
    **LLAMA_FIELDS,
    **ATTENTION_BIASES,
    "norm_eps": rms_norm_eps(1e-5),
    "norms": Setting(NO_KEY, default="after"),
    "head_norms": Setting(NO_KEY, default=True),
    "joint_head_norms": Setting(NO_KEY, default=True),
}


def _family(name: str, fields: Mapping[str, Field]) -> Family[LlamaConfig]:
    return Family(
        name=name,
        config=ConfigTable(LlamaConfig, fields=fields, fixed=(SAME_VALUE_SIZE, SILU), matrices=MATRICES),
        build={"causal": Llama},
        hub_names=lambda config: decoder_names(NORM_AFTER_HUB, config),
        gguf_names=lambda config: decoder_names(NORM_AFTER_GGUF, config),
        gguf="olmo2",
    )


OLMO2 = _family("olmo2", OLMO2_FIELDS)
# GGUF files of both have one architecture; those of OLMo 2 have no window.
OLMO3 = _family(
    "olmo3",
    {
        **OLMO2_FIELDS,
        "windows": WindowField(
            pattern=4, pattern_key="", default=4096, gguf="attention.sliding_window", zero_is_none=True
        ),
        "rope": RopeByKind(
            {
                FULL: KindOfLayer(5e5, "rope_theta", "rope.freq_base"),
                WINDOWED: KindOfLayer(5e5, "rope_theta", "rope.freq_base_swa"),
            }
        ),
    },
)
