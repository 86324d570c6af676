"""Defines Gemma 1, 2 and 3: Llama with a scaled embedding, gelu and norms that are stored less 1.

Gemma 2 adds norms after attention and MLP, caps of the scores and of the logits, and windows on every other
layer. Gemma 3 replaces the caps by norms of queries and keys, and rotates differently in layers with a
window. Gemma Team, Gemma (2024), Gemma 2 (2024) and Gemma 3 (2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.attention_layer import AttentionLayer
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    POSITIVE,
    SAME,
    TEXT,
    ConfigTable,
    Field,
    Fixed,
    Setting,
    Source,
    choice,
    rows_of,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import (
    FIELDS,
    MATRICES,
    SAME_VALUE_SIZE,
    context_length,
    head_size,
    if_missing,
    tied_head,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, Llama, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, Spelling, decoder_names
from decodery.models.rope_config import KindOfLayer, RopeByKind
from decodery.models.window_config import FULL, WINDOWED, WindowField
from decodery.weights.transforms import offset


@dataclass(frozen=True)
class GemmaConfig(LlamaConfig):
    """Holds the sizes and values of one Gemma.

    Scores are divided by the square root of `query_scale`, or if that is None of a head's size. `softcap` and
    `logit_softcap` are the caps of the scores and of the logits.
    """

    embedding_scale: float = 1.0
    query_scale: float | None = None
    softcap: float | None = None
    logit_softcap: float | None = None

    @property
    def exact_norms(self) -> bool:
        return True

    @property
    def scale(self) -> float:
        scale: float = (self.query_scale or self.head_dim) ** -0.5
        return scale

    def attention(self, layer: int) -> AttentionLayer:
        return replace(super().attention(layer), softcap=self.softcap)


class Gemma(Llama):
    """Defines a Gemma over the given kernels; its parameters are not initialised."""

    config: GemmaConfig

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        scaled: Tensor = self.embedding(tokens, scale=self.rounded(self.config.embedding_scale))
        return scaled

    def rounded(self, number: float) -> float:
        """Returns the nearest number of the model's dtype."""
        mantissa, exponent = math.frexp(number)
        step = torch.finfo(self.dtype).eps / 2
        return math.ldexp(round(mantissa / step) * step, exponent)

    def logits(self, hidden: Tensor) -> Tensor:
        scores, cap = super().logits(hidden), self.config.logit_softcap
        return scores if cap is None else (scores / cap).tanh() * cap


@dataclass(frozen=True)
class QueryScale(Field):
    """Says how `query_scale` is stored.

    GGUF has no key: it is the size of a head, and the quotient of width and heads in models of `large`
    layers, by which llama.cpp knows the 27B ones.
    """

    large: int

    def keys(self, gguf: bool) -> tuple[str, ...]:
        return () if gguf else ("query_pre_attn_scalar",)

    def read(self, source: Source, name: str) -> float:
        if source.is_gguf:
            return self._of_gguf(source["layers"], source["width"], source["heads"], source["head_dim"])
        return source.keys.positive(self.keys(False)[0], 256.0)

    def write(self, value: float, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return {self.keys(False)[0]: int(value) if value.is_integer() else value}
        if value != self._of_gguf(config.layers, config.width, config.heads, config.head_dim):
            raise ModelError(f"a GGUF file cannot express a query_pre_attn_scalar of {value}")
        return {}

    def _of_gguf(self, layers: int, width: int, heads: int, head_dim: int) -> float:
        return float(width // heads if layers == self.large else head_dim)


GELU = choice({"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"})
GEMMA1_GELU = choice({"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu_tanh", "gelu_new": "gelu_tanh"})
FIXED = (
    SAME_VALUE_SIZE,
    Fixed(
        hub="use_bidirectional_attention",
        accepted=(False,),
        wanted="false, since a text is generated from left to right",
    ),
)
GEMMA_FIELDS: Mapping[str, Field] = {
    **LLAMA_FIELDS,
    **ATTENTION_BIASES,
    **if_missing(context=8192, heads=16),
    "head_dim": head_size(256),
    "tied_head": tied_head(True),
    "activation": Setting(GEMMA1_GELU, "hidden_act", default="gelu_tanh"),
    "embedding_scale": Setting(POSITIVE, default=lambda source: source["width"] ** 0.5),
}
GEMMA2_FIELDS: Mapping[str, Field] = {
    **GEMMA_FIELDS,
    **if_missing(context=8192, heads=4),
    "activation": Setting(GELU, "hidden_activation", default="gelu_tanh"),
    "norms": Setting(TEXT, default="both"),
    "query_scale": QueryScale(large=46),
    "softcap": Setting(
        POSITIVE, "attn_logit_softcapping", "attn_logit_softcapping", default=50.0, none=(None,)
    ),
    "logit_softcap": Setting(
        POSITIVE, "final_logit_softcapping", "final_logit_softcapping", default=30.0, none=(None,)
    ),
    "windows": WindowField(
        pattern=2, pattern_key="", default=4096, gguf="attention.sliding_window", gguf_default=4096
    ),
}
SIZES = {"width": 2304, "layers": 26, "heads": 8, "kv_heads": 4, "mlp_width": 9216}


def _size(name: str, default: int) -> Setting:
    setting = FIELDS[name]
    assert isinstance(setting, Setting)
    in_gguf = setting.default if setting.gguf_default is SAME else setting.gguf_default
    return replace(setting, default=default, gguf_default=in_gguf)


GEMMA3_FIELDS: Mapping[str, Field] = {
    **GEMMA2_FIELDS,
    # A GGUF file may say how many rows the hub's embedding had.
    "vocab_size": Setting(COUNT, "vocab_size", default=262208, gguf_default=rows_of("token_embd.weight")),
    # The text part of a larger model leaves out the sizes that are those of the first one, of 2B.
    **{name: _size(name, default) for name, default in SIZES.items()},
    "head_norms": Setting(FLAG, default=True),
    "query_scale": QueryScale(large=62),
    "softcap": Setting(POSITIVE, default=None),
    "logit_softcap": Setting(
        POSITIVE, "final_logit_softcapping", "final_logit_softcapping", default=None, none=(None, 0.0)
    ),
    "windows": WindowField(pattern=6, default=4096, gguf="attention.sliding_window", zero_is_none=True),
    "context_length": context_length(131072),
    "rope": RopeByKind(
        {
            FULL: KindOfLayer(1e6, "rope_theta", "rope.freq_base"),
            WINDOWED: KindOfLayer(1e4, "rope_local_base_freq", "rope.freq_base_swa", gguf_theta=1e4),
        }
    ),
}
SANDWICH_HUB = {
    **HUB.norms,
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
SANDWICH_GGUF = {**GGUF.norms, "attn_post_norm": "post_attention_norm", "mlp_post_norm": "post_ffw_norm"}


def _family(
    name: str, fields: Mapping[str, Field], hub: Spelling, gguf: Spelling, fixed: tuple[Fixed, ...] = FIXED
) -> Family[GemmaConfig]:
    def hub_names(config: GemmaConfig) -> Names:
        return decoder_names(hub, config, norm=offset(-1))

    return Family(
        name=name,
        config=ConfigTable(GemmaConfig, fields=fields, fixed=fixed, matrices=MATRICES),
        build={"causal": Gemma},
        hub_names=hub_names,
        gguf_names=lambda config: decoder_names(gguf, config),
        gguf=name,
    )


NO_SCORE_CAP = Fixed(hub="attn_logit_softcapping", wanted="null: the scores of Gemma 3 have no cap")
GEMMA = _family("gemma", GEMMA_FIELDS, HUB, GGUF)
GEMMA2 = _family(
    "gemma2", GEMMA2_FIELDS, replace(HUB, norms=SANDWICH_HUB), replace(GGUF, norms=SANDWICH_GGUF)
)
GEMMA3 = _family(
    "gemma3",
    GEMMA3_FIELDS,
    replace(HUB, norms=SANDWICH_HUB),
    replace(GGUF, norms=SANDWICH_GGUF),
    (*FIXED, NO_SCORE_CAP),
)
