"""Defines Mistral and Ministral: Llama whose layers see a window of keys.

Jiang et al., Mistral 7B (2023).
"""

from __future__ import annotations

from decodery.models.config_reader import ConfigTable
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, Llama, LlamaConfig, gguf_names
from decodery.models.decoders.names import HUB, decoder_names
from decodery.models.window_config import WindowField

MISTRAL = Family(
    name="mistral",
    config=ConfigTable(
        LlamaConfig,
        fields={**LLAMA_FIELDS, "windows": WindowField(default=4096)},
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="llama",
)
"""A config.json may name the kinds of its layers, as those of Ministral do."""
