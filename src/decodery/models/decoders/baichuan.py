"""Defines Baichuan 1 and 2: Llama with one matrix of queries, keys and values; the 13B models have ALiBi.

Baichuan 2 divides each row of the head by its length. Yang et al., Baichuan 2 (2023); Press et al., Train
Short, Test Long (2022).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decodery.kernels.attention_layer import AttentionLayer
from decodery.models.config_reader import COUNT, FLAG, REQUIRED, ConfigTable, Setting, Source
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, Llama, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.alibi import alibi
from decodery.weights.names import rename
from decodery.weights.transforms import UNIT_ROWS, permuted

ALIBI_LAYERS = 40
"""The number of layers of the 13B models: no setting tells them from the others."""
UNIT_HEAD_VOCABULARY = 125696
"""The vocabulary of Baichuan 2, which no setting tells from Baichuan 1 either."""


@dataclass(frozen=True)
class BaichuanConfig(LlamaConfig):
    """Holds the sizes and values of one Baichuan. `has_alibi`: positions are a bias of the scores.

    `unit_head`: each row of the head is divided by its length.
    """

    has_alibi: bool = False
    unit_head: bool = False

    def attention(self, layer: int) -> AttentionLayer:
        found = super().attention(layer)
        return replace(found, bias=alibi(self.heads, self.context_length)) if self.has_alibi else found


def _rotated(source: Source) -> tuple[bool, ...]:
    return (False,) * source["layers"] if source["has_alibi"] else ()


def _hub_names(config: BaichuanConfig) -> Names:
    spelling = replace(HUB, qkv=("self_attn.W_pack",))
    return _with_unit_head(decoder_names(spelling, config), config, f"{HUB.head}.weight")


def _gguf_names(config: BaichuanConfig) -> Names:
    rows = permuted(config.heads), permuted(config.kv_heads), None
    return _with_unit_head(decoder_names(GGUF, config, qkv=rows), config, f"{GGUF.head}.weight")


def _with_unit_head(names: Names, config: BaichuanConfig, head: str) -> Names:
    rule = rename("head.weight", head, UNIT_ROWS)
    return replace(names, rules=(rule, *names.rules)) if config.unit_head else names


BAICHUAN = Family(
    name="baichuan",
    config=ConfigTable(
        BaichuanConfig,
        fields={
            **LLAMA_FIELDS,
            "context_length": Setting(
                COUNT,
                ("model_max_length", "max_position_embeddings"),
                "context_length",
                default=4096,
                gguf_default=REQUIRED,
            ),
            "has_alibi": Setting(FLAG, default=lambda source: source["layers"] == ALIBI_LAYERS),
            "unit_head": Setting(FLAG, default=lambda source: source["vocab_size"] == UNIT_HEAD_VOCABULARY),
            "rotated": Setting(FLAG, default=_rotated),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Llama},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="baichuan",
)
