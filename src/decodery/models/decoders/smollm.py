"""Defines SmolLM3: Llama in which one layer of four does not rotate.

Bakouch et al., SmolLM3 (2025); Yang et al., Rope to Nope and Back Again (2025).
"""

from __future__ import annotations

from decodery.models.config_reader import ConfigTable, Source
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, if_missing, tied_head
from decodery.models.decoders.llama import BIASES, LLAMA_FIELDS, SILU, Llama, LlamaConfig, gguf_names
from decodery.models.decoders.names import HUB, decoder_names
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import RotatedField, WindowField


def _rotated(source: Source) -> list[bool]:
    interval = 4 if source.is_gguf else source.keys.count("no_rope_layer_interval", 4)
    return [(layer + 1) % interval != 0 for layer in range(source["layers"])]


def _does_not_rotate(source: Source, layer: int) -> bool:
    rotated = source["rotated"]
    return bool(rotated) and not rotated[layer]


SMOLLM3 = Family(
    name="smollm3",
    config=ConfigTable(
        LlamaConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=32768, heads=4),
            **BIASES,
            "tied_head": tied_head(True),
            "rope": RopeField(default=Rope(2e6)),
            "rotated": RotatedField(_rotated),
            "windows": WindowField(windowed=_does_not_rotate, enabled_by="use_sliding_window"),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="smollm3",
)
