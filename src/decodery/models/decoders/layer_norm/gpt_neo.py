"""Defines GPT-Neo: GPT-2 in which every other layer sees a window, and scores are not scaled.

Black et al., GPT-Neo (2021). The alternation is that of Brown et al., Language Models are Few-Shot Learners
(2020), section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from decodery.models.config_reader import COUNT, NO_KEY, ConfigTable, Field, Setting, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, context_length, times_width
from decodery.models.decoders.layer_norm.gpt2 import CONV1D, GPT2, GPT2_FIELDS, GPT2Config
from decodery.models.decoders.names import decoder_names
from decodery.models.window_config import Windows

KINDS = ("global", "local")


@dataclass(frozen=True)
class LocalWindows(Field):
    """Says which layers have a window: `attention_types` is a list of [kinds, number of repetitions]."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention_types",)

    def read(self, source: Source, name: str) -> Windows:
        types = source.keys.values.get("attention_types")
        kinds = _repeated([[list(KINDS), 12]] if types is None else types, source["layers"])
        if kinds is None:
            wanted = f"a list of [kinds, repetitions] for {source['layers']} layers, each global or local"
            raise source.keys.error("attention_types", wanted)
        window = source.keys.count("window_size", 256)
        return tuple(window if kind == "local" else None for kind in kinds)

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        kinds = ["global" if window is None else "local" for window in value or [None] * config.layers]
        window = next(filter(None, value), None)
        types: dict[str, Any] = {"attention_types": [[kinds, 1]]}
        return types if window is None else {**types, "window_size": window}


def _repeated(types: object, layers: int) -> list[str] | None:
    """Returns the kind of each layer; None if the list is not one of [kinds, repetitions] for the layers."""
    kinds: list[str] = []
    for part in types if isinstance(types, list) else [None]:
        match part:
            case [[_, *_] as each, int(times)] if times > 0 and all(kind in KINDS for kind in each):
                if len(kinds) + len(each) * times > layers:
                    return None
                kinds += each * times
            case _:
                return None
    return kinds if len(kinds) == layers else None


HUB = replace(
    CONV1D,
    qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    out="attn.attention.out_proj",
    derived=("transformer.h.*.attn.attention.bias", "transformer.h.*.attn.attention.masked_bias"),
)
CONTEXT = context_length(2048)
GPT_NEO = Family(
    name="gpt_neo",
    config=ConfigTable(
        GPT2Config,
        fields={
            **GPT2_FIELDS,
            "width": Setting(COUNT, "hidden_size"),
            "layers": Setting(COUNT, ("num_layers", "num_hidden_layers")),
            "heads": Setting(COUNT, ("num_heads", "num_attention_heads")),
            "mlp_width": Setting(COUNT, "intermediate_size", default=times_width(4)),
            "context_length": CONTEXT,
            "positions": CONTEXT,
            "attention_bias": Setting(NO_KEY, default=False),
            "scaled": Setting(NO_KEY, default=False),
            "windows": LocalWindows(),
        },
        matrices=MATRICES,
    ),
    build={"causal": GPT2},
    hub_names=lambda config: decoder_names(HUB, config),
)
