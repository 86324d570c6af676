"""Defines EXAONE 3 and 4: Llama under other names, and one with norms after attention and MLP.

In EXAONE 4, layers that see all keys do not rotate if other layers have a window. LG AI Research, EXAONE 3.0
(2024) and EXAONE 4.0 (2025).
"""

from __future__ import annotations

from dataclasses import replace

from decodery.models.config_reader import COUNT, NO_KEY, ConfigTable, Fixed, Setting, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, if_missing
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, Llama, LlamaConfig, rms_norm_eps
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.decoders.olmo import NORM_AFTER_GGUF, NORM_AFTER_HUB
from decodery.models.window_config import WindowField

EXAONE3_HUB = replace(
    HUB,
    embedding="transformer.wte",
    layer="transformer.h.{i}.",
    norms={"attn_norm": "ln_1", "mlp_norm": "ln_2"},
    qkv=tuple(f"attn.attention.{part}_proj" for part in "qkv"),
    out="attn.attention.out_proj",
    gate_up=("mlp.c_fc_0", "mlp.c_fc_1"),
    down="mlp.c_proj",
    norm="transformer.ln_f",
    derived=("transformer.h.*.rotary_emb.inv_freq", "transformer.rotary.inv_freq"),
)
EXAONE3 = Family(
    name="exaone",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            "layers": Setting(COUNT, ("num_layers", "num_hidden_layers"), "block_count"),
            "norm_eps": replace(rms_norm_eps(1e-5), hub="layer_norm_epsilon"),
        },
        fixed=(
            SAME_VALUE_SIZE,
            Fixed(hub="activation_function", value="silu", accepted=("swish",), wanted="'silu'"),
        ),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(EXAONE3_HUB, config),
    gguf_names=lambda config: decoder_names(GGUF, config),
    gguf="exaone",
)


def _rotated(source: Source) -> tuple[bool, ...]:
    if not source["windows"] and not source.is_gguf and source.keys.has("sliding_window"):
        raise source.keys.error("sliding_window", "null, since no layer has a window")
    return tuple(window is not None for window in source["windows"])


EXAONE4 = Family(
    name="exaone4",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(heads=32),
            "norm_eps": rms_norm_eps(1e-5),
            "norms": Setting(NO_KEY, default="after"),
            "head_norms": Setting(NO_KEY, default=True),
            "windows": WindowField(pattern=4, default=4096, gguf="attention.sliding_window"),
            "rotated": Setting(NO_KEY, default=_rotated),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(NORM_AFTER_HUB, config),
    gguf_names=lambda config: decoder_names(NORM_AFTER_GGUF, config),
    gguf="exaone4",
)
