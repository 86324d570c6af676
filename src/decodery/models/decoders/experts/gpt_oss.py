"""Defines gpt-oss: attention with sinks, every second layer with a window, and a mixture of experts in each.

OpenAI, gpt-oss-120b and gpt-oss-20b Model Card (2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import COUNT, FLAG, ConfigTable, Fixed, Setting, Source, exists, is_even
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    ExpertSpelling,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_fields,
    expert_rules,
)
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.attention import Attention
from decodery.models.layers.rope import Rope, YarnRope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField, Windows
from decodery.weights.names import rename, stack
from decodery.weights.transforms import TRANSPOSED, Transform


@dataclass(frozen=True, kw_only=True)
class GptOssConfig(MoEConfig):
    """Holds the sizes and values of one gpt-oss."""

    sinks: bool = True


class GptOss(MoELlama):
    """Defines a gpt-oss over the given kernels; its parameters are not initialised."""

    def attention(self, config: LlamaConfig, layer: int, kernels: Kernels) -> Attention:
        assert isinstance(config, GptOssConfig)
        return Attention(
            config.attention(layer),
            config.width,
            kernels,
            bias=config.attention_bias,
            out_bias=config.out_bias,
            sinks=config.sinks,
        )


def _is_even(source: Source, layer: int) -> bool:
    return layer % 2 == 0


@dataclass(frozen=True)
class EvenWindows(WindowField):
    """Says that the even layers have the window, which GGUF files have a key for."""

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return super().write(value, config, gguf=gguf)
        window = next(filter(None, value), None)
        if window is None or value != tuple(None if i % 2 else window for i in range(config.layers)):
            raise ModelError("a GGUF file of this family has a window on the even layers")
        return {self.gguf: window}


@dataclass(frozen=True)
class UntruncatedRope(RopeField):
    """Says how rotary positions are stored whose yarn GGUF files cannot tell from the truncated one."""

    def read(self, source: Source, name: str) -> Rope:
        found = super().read(source, name)
        return replace(found, truncate=False) if source.is_gguf and isinstance(found, YarnRope) else found

    def write(self, value: Rope, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf and isinstance(value, YarnRope):
            if value.truncate:
                raise ModelError("a GGUF file of this family has yarn whose bounds are not truncated")
            value = replace(value, truncate=True)
        return super().write(value, config, gguf=gguf)


def _apart(stored: Tensor) -> Tensor:
    return torch.cat((stored[0::2], stored[1::2]))


def _alternating(ours: Tensor) -> Tensor:
    return torch.stack(tuple(ours.chunk(2)), 1).flatten(0, 1)


ALTERNATING = Transform(_apart, _alternating, moves_rows=True)
"""Rows of gate and up alternate in the stored matrix or bias."""
COLUMNS = Transform(
    lambda stored: _apart(TRANSPOSED.load(stored)), lambda ours: TRANSPOSED.store(_alternating(ours))
)
"""The stored matrix is [inputs, outputs], and columns of gate and up alternate."""

PLAIN = ExpertSpelling(
    "mlp.router",
    ("mlp.experts.gate_up_proj",),
    "mlp.experts.down_proj",
    transforms=(COLUMNS, TRANSPOSED),
)
FOUR_BITS = ExpertSpelling(
    "mlp.router",
    ("mlp.experts.gate_up_proj_blocks",),
    "mlp.experts.down_proj_blocks",
    transforms=(ALTERNATING, None),
)
IN_GGUF = replace(GGUF_EXPERTS, shared=None, shared_gate="", correction="")
GGUF_NAMES = replace(GGUF, norms={**GGUF.norms, "mlp_norm": "post_attention_norm"})


def _hub_names(config: MoEConfig) -> Names:
    layer, count = HUB.layer, config.experts
    further = [
        *expert_rules(layer, config, (PLAIN, FOUR_BITS)),
        stack(
            "layers.{i}.mlp.experts.gate_up.bias",
            [f"{layer}mlp.experts.gate_up_proj_bias"],
            count,
            [ALTERNATING],
        ),
        stack("layers.{i}.mlp.experts.down.bias", [f"{layer}mlp.experts.down_proj_bias"], count),
        rename("layers.{i}.attn.sinks", f"{layer}self_attn.sinks"),
    ]
    return replace(decoder_names(HUB, config, further=further), exact=exact_tensors(layer, (PLAIN,)))


def _gguf_names(config: MoEConfig) -> Names:
    layer, count = GGUF.layer, config.experts
    biases = [f"{layer}ffn_gate_exps.bias", f"{layer}ffn_up_exps.bias"]
    further = [
        *expert_rules(layer, config, (IN_GGUF,)),
        stack("layers.{i}.mlp.experts.gate_up.bias", biases, count),
        stack("layers.{i}.mlp.experts.down.bias", [f"{layer}ffn_down_exps.bias"], count),
        rename("layers.{i}.attn.sinks", f"{layer}attn_sinks.weight"),
    ]
    names = decoder_names(GGUF_NAMES, config, further=further)
    return replace(names, exact=exact_tensors(layer, (IN_GGUF,)))


GPT_OSS = Family(
    name="gpt-oss",
    config=ConfigTable(
        GptOssConfig,
        fields={
            **LLAMA_FIELDS,
            "head_dim": Setting(
                COUNT, "head_dim", "attention.key_length", default=64, checks=(is_even("heads"),)
            ),
            "norm_eps": replace(LLAMA_FIELDS["norm_eps"], default=1e-5),  # type: ignore[type-var]
            **expert_fields("num_local_experts", 128, 4, width=None),
            "attention_bias": Setting(
                FLAG, "attention_bias", default=True, gguf_default=exists("blk.0.attn_q.bias")
            ),
            "out_bias": Setting(
                FLAG,
                default=lambda source: source["attention_bias"],
                gguf_default=exists("blk.0.attn_output.bias"),
            ),
            "router_bias": Setting(FLAG, default=True),
            "expert_bias": Setting(FLAG, default=True),
            "expert_activation": Setting(COUNT, default="clamped_swiglu"),
            "rope": UntruncatedRope(
                default=YarnRope(theta=150000.0, factor=32.0, original_length=4096, truncate=False)
            ),
            "windows": EvenWindows(windowed=_is_even, default=128, gguf="attention.sliding_window"),
        },
        fixed=(
            SAME_VALUE_SIZE,
            SILU,
            Fixed(hub="swiglu_limit", value=7.0, wanted="{value}"),
            Fixed(hub="swiglu_alpha", value=1.702, wanted="{value}"),
        ),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": GptOss},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="gpt-oss",
)
