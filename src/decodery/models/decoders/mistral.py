"""Defines Mistral and Ministral: Llama whose layers see a window of keys, or that is scaled by YaRN.

Jiang et al., Mistral 7B (2023); Liu et al., Ministral 3 (2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ModelError
from decodery.kernels.contract import PositionGrowth
from decodery.models.config_reader import ConfigTable, Field, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import (
    MATRICES,
    NULL_IS_QUOTIENT,
    SAME_VALUE_SIZE,
    head_size,
    if_missing,
)
from decodery.models.decoders.llama import (
    LLAMA_FIELDS,
    SILU,
    Llama,
    LlamaConfig,
    gguf_names,
    rms_norm_eps,
)
from decodery.models.decoders.names import HUB, decoder_names
from decodery.models.layers.rope import YarnRope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField

MISTRAL = Family(
    name="mistral",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=131072, heads=8),
            "windows": WindowField(default=4096),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="llama",
)
"""A config.json may name the kinds of its layers; transformers' Auto classes then open it as Ministral."""


@dataclass(frozen=True)
class GrowthField(Field):
    """Says how the growth of queries is stored: its slope, for the original length of the YaRN scaling.

    `default` is the slope of a config.json without rotary positions.
    """

    default: float

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.temperature_scale",) if gguf else ("rope_parameters.llama_4_scaling_beta",)

    def read(self, source: Source, name: str) -> PositionGrowth | None:
        if source.is_gguf:
            keys, key = source.place(self.keys(True)[0])
        else:
            section = "rope_scaling" if source.keys.has("rope_scaling") else "rope_parameters"
            if not source.keys.has(section):
                return PositionGrowth(self.default, source["rope"].original_length)
            keys, key = source.keys.section(section), "llama_4_scaling_beta"
        if not keys.values.get(key):
            return None
        slope = keys.positive(key)
        if not isinstance(source["rope"], YarnRope):
            raise keys.error(key, "left out, since the rotary positions have no original length")
        return PositionGrowth(slope, source["rope"].original_length)

    def write(self, value: PositionGrowth | None, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(config.rope, YarnRope) or config.rope.original_length != value.length:
            raise ModelError("queries can grow only with the original length of a yarn scaling")
        return {self.keys(gguf)[0]: value.slope}


MINISTRAL3 = Family(
    name="ministral3",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=262144, heads=8),
            "head_dim": head_size(NULL_IS_QUOTIENT),
            "norm_eps": rms_norm_eps(1e-5),
            "rope": RopeField(default=YarnRope(1e6, 16.0, 16384, attention_factor=1.0), theta_alone=False),
            "growth": GrowthField(0.1),
            "windows": WindowField(named=False),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="mistral3",
)
