"""Defines Phi-3.5-MoE: a Llama with layer norms and mixtures of experts that SparseMixer weighs.

Abdin et al., Phi-3 Technical Report (2024), section 2; Liu et al., GRIN: GRadient-INformed MoE (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from decodery.errors import ModelError
from decodery.kernels.contract import Kernels
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import FLAG, ConfigTable, Kind, Setting, Source, exists
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE, if_missing
from decodery.models.decoders.experts.mixtral import OWN
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_STACKS,
    HubOnly,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_fields,
    expert_rules,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU, LlamaConfig, rms_norm_eps
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import LongRope, Rope, Rotary
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField


@dataclass(frozen=True, kw_only=True)
class PhiMoEConfig(MoEConfig):
    """Holds the sizes and values of one Phi-3.5-MoE."""

    head_bias: bool


class PhiMoE(MoELlama):
    """Defines a Phi-3.5-MoE over the given kernels; its parameters are not initialised."""

    def __init__(self, config: PhiMoEConfig, kernels: Kernels) -> None:
        blocks = [self.block(config, layer, kernels) for layer in range(config.layers)]
        assert isinstance(config.rope, Rope)
        rotary = Rotary(config.rope, config.head_dim, config.context_length, kernels)
        norm = LayerNorm(config.width, config.norm_eps, kernels)
        Decoder.__init__(self, config, kernels, blocks, norm, rotary=rotary, head_bias=config.head_bias)
        self.window_rotary = rotary

    def block(self, config: LlamaConfig, layer: int, kernels: Kernels) -> nn.Module:
        norms = [LayerNorm(config.width, config.norm_eps, kernels) for _ in range(2)]
        attention, mlp = self.attention(config, layer, kernels), self.mlp(config, layer, kernels)
        return PreNormBlock(norms[0], attention, norms[1], mlp)


@dataclass(frozen=True)
class TwoMagnitudes(RopeField):
    """Says how a scaling is stored that has one magnitude for short texts and one for long ones."""

    def read(self, source: Source, name: str) -> Rope:
        found = super().read(source, name)
        if source.is_gguf or not isinstance(found, LongRope):
            return found
        key = "rope_scaling" if source.keys.has("rope_scaling") else "rope_parameters"
        rope = source.keys.section(key)
        short, long = found.magnitudes
        both = rope.positive("short_mscale", short), rope.positive("long_mscale", long)
        return replace(found, magnitudes=both)

    def write(self, value: Rope, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not isinstance(value, LongRope):
            return super().write(value, config, gguf=gguf)
        short, long = value.magnitudes
        if gguf and short != long:
            raise ModelError("a GGUF file has one magnitude for short and long texts")
        written = super().write(replace(value, magnitudes=(short, short)), config, gguf=gguf)
        if gguf:
            return written
        both = {"short_mscale": short, "long_mscale": long}
        return {**written, "rope_parameters": {**written["rope_parameters"], **both}}


def _twice(keys: CheckpointKeys, key: str) -> float:
    value = keys.values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise keys.error(key, "a number from 0 to below 1")
    return 2.0 * value


TWICE = Kind(_twice, lambda within: within / 2)
"""The distance is twice the noise that training adds."""

STACKS = replace(HUB_STACKS, router="mlp.router")
IN_GGUF = (replace(GGUF_EXPERTS, shared=None, shared_gate="", correction=""),)


def _hub_names(config: MoEConfig) -> Names:
    names = decoder_names(HUB, config, further=expert_rules(HUB.layer, config, (OWN, STACKS)))
    return replace(names, exact=exact_tensors(HUB.layer, (OWN, STACKS)))


def _gguf_names(config: MoEConfig) -> Names:
    names = decoder_names(GGUF, config, further=expert_rules(GGUF.layer, config, IN_GGUF))
    return replace(names, exact=exact_tensors(GGUF.layer, IN_GGUF))


PHI_MOE = Family(
    name="phimoe",
    config=ConfigTable(
        PhiMoEConfig,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=131072, heads=8),
            "norm_eps": rms_norm_eps(1e-5),
            **expert_fields("num_local_experts", 16, 2, width=None),
            "within": HubOnly(
                TWICE,
                "router_jitter_noise",
                default=0.02,
                gguf_default=0.02,
            ),
            **ATTENTION_BIASES,
            "head_bias": Setting(FLAG, "lm_head_bias", default=False, gguf_default=exists("output.bias")),
            "rope": TwoMagnitudes(default=Rope(1e6), renamed={"su": "longrope"}),
            "windows": WindowField(named=False, gguf="attention.sliding_window", zero_is_none=True),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": PhiMoE},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="phimoe",
)
