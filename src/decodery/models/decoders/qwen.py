"""Defines Qwen 2 and 3: Llama with biases of queries, keys and values, or with norms of their heads.

Qwen Team, Qwen2 Technical Report (2024) and Qwen3 Technical Report (2025).
"""

from __future__ import annotations

from decodery.models.config_reader import NO_KEY, ConfigTable, Setting, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, head_size, if_missing
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU, Llama, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.window_config import WindowField


def _from_first(source: Source, layer: int) -> bool:
    """True if a layer has a window: those from `max_window_layers` on have one."""
    return layer >= source.keys.count("max_window_layers", 28, least=0)


WINDOWS = WindowField(windowed=_from_first, default=4096, enabled_by="use_sliding_window")

QWEN2 = Family(
    name="qwen2",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=32768, heads=32),
            "attention_bias": Setting(NO_KEY, default=True),
            "windows": WINDOWS,
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=lambda config: decoder_names(GGUF, config),
    gguf="qwen2",
)

QWEN3 = Family(
    name="qwen3",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=32768, heads=32),
            "head_dim": head_size(128),
            **ATTENTION_BIASES,
            "head_norms": Setting(NO_KEY, default=True),
            "windows": WINDOWS,
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=lambda config: decoder_names(GGUF, config),
    gguf="qwen3",
)
