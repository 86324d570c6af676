"""Defines DeepSeek 2 and 3: latent attention, and mixtures of many experts in all layers but the first.

DeepSeek-AI, DeepSeek-V2 (2024) and DeepSeek-V3 Technical Report (2024). Kimi K2 and Moonlight are further
models of the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import COUNT, FLAG, REQUIRED, ConfigTable, Field, Fixed, Setting, value_of
from decodery.models.contract import Family, Names
from decodery.models.decoders.experts.deepseek_config import (
    GATING,
    AllDimensions,
    HeadSizes,
    LatentRope,
    Method,
    has_correction,
    is_positive_even,
)
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    HUB_EXPERTS,
    HUB_STACKS,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_rules,
)
from decodery.models.decoders.experts.shared_routing import SharedWidth, routed_fields
from decodery.models.decoders.llama import LLAMA_FIELDS, SILU, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.latent_attention import LatentAttention
from decodery.models.layers.norm import RMSNorm
from decodery.models.layers.rope import YarnRope, yarn_magnitude
from decodery.weights.names import Rule, merge, rename
from decodery.weights.transforms import Transform, reordered


@dataclass(frozen=True, kw_only=True)
class DeepseekConfig(MoEConfig):
    """Holds the sizes and values of one DeepSeek.

    The first `rotated_size` of a head's `head_dim` elements are rotated. `interleaved`: a checkpoint stores
    them in neighbouring pairs. `all_dimensions` is the part of yarn's magnitude that is in the scale.
    """

    v_size: int
    kv_rank: int
    q_rank: int | None
    interleaved: bool
    all_dimensions: float

    @property
    def rotary(self) -> int:
        """Returns how many elements of a head are rotated."""
        assert self.rotated_size is not None
        return self.rotated_size

    def attention(self, layer: int) -> AttentionLayer:
        scale = self.head_dim**-0.5
        if isinstance(self.rope, YarnRope) and self.all_dimensions:
            scale *= yarn_magnitude(self.rope.factor, self.all_dimensions) ** 2
        return AttentionLayer(layer, self.heads, self.heads, self.head_dim, self.v_size, scale)


class Deepseek(MoELlama):
    """Defines a DeepSeek over the given kernels; its parameters are not initialised."""

    config: DeepseekConfig

    def block(self, config: LlamaConfig, layer: int, kernels: Kernels) -> nn.Module:
        assert isinstance(config, DeepseekConfig)
        attention = LatentAttention(
            config.attention(layer),
            config.width,
            config.rotary,
            config.kv_rank,
            config.q_rank,
            kernels,
            bias=config.attention_bias,
        )
        norms = [RMSNorm(config.width, config.norm_eps, kernels) for _ in range(2)]
        return PreNormBlock(norms[0], attention, norms[1], self.mlp(config, layer, kernels))


def _rotated_rows(config: DeepseekConfig) -> list[int]:
    """Returns the stored places of the rotated rows."""
    rows = range(config.rotary)
    return [*rows[::2], *rows[1::2]] if config.interleaved else [*rows]


def _queries(config: DeepseekConfig) -> Transform:
    """Returns the transform of heads whose rotated rows are stored last; ours are first."""
    size, plain = config.head_dim, config.head_dim - config.rotary
    one = [*(plain + row for row in _rotated_rows(config)), *range(plain)]
    return reordered([head * size + row for head in range(config.heads) for row in one])


def _low_keys(config: DeepseekConfig) -> Transform:
    rank = config.kv_rank
    return reordered([*range(rank), *(rank + row for row in _rotated_rows(config))])


def _keys_and_values(config: DeepseekConfig) -> Transform:
    """Returns the transform of heads with a key and a value each; ours are all keys, then all values."""
    plain = config.head_dim - config.rotary
    heads = range(0, config.heads * (plain + config.v_size), plain + config.v_size)
    keys = [head + row for head in heads for row in range(plain)]
    return reordered([*keys, *(head + plain + row for head in heads for row in range(config.v_size))])


def _attention_rules(config: DeepseekConfig, layer: str, names: Mapping[str, str]) -> list[Rule]:
    """Returns the rules of the linear maps but that of keys and values."""
    transforms = {"q": _queries(config), "kv_low": _low_keys(config)}
    return [
        rename(f"layers.{{i}}.attn.{ours}.{kind}", f"{layer}{stored}.{kind}", transforms.get(ours))
        for ours, stored in names.items()
        for kind in ("weight", "bias")
    ]


SHARED = "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"
IN_HUB = replace(HUB_EXPERTS, shared=SHARED, correction="mlp.gate.e_score_correction_bias"), HUB_STACKS
IN_GGUF = (replace(GGUF_EXPERTS, shared_gate=""),)
HUB_NAMES = replace(
    HUB,
    qkv=(),
    norms={
        "attn_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attn.q_norm": "self_attn.q_a_layernorm",
        "attn.kv_norm": "self_attn.kv_a_layernorm",
    },
)
GGUF_NAMES = replace(
    GGUF,
    qkv=(),
    norms={
        "attn_norm": "attn_norm",
        "mlp_norm": "ffn_norm",
        "attn.q_norm": "attn_q_a_norm",
        "attn.kv_norm": "attn_kv_a_norm",
    },
)


def _hub_names(config: DeepseekConfig) -> Names:
    layer = HUB.layer
    names = {
        "q_low": "self_attn.q_a_proj",
        "q": "self_attn.q_proj" if config.q_rank is None else "self_attn.q_b_proj",
        "kv_low": "self_attn.kv_a_proj_with_mqa",
    }
    both = rename("layers.{i}.attn.kv.weight", f"{layer}self_attn.kv_b_proj.weight", _keys_and_values(config))
    further = [*_attention_rules(config, layer, names), both, *expert_rules(layer, config, IN_HUB)]
    found = decoder_names(HUB_NAMES, config, further=further)
    return replace(
        found,
        # The layers behind the last one predict further tokens.
        ignored=(*found.ignored, f"model.layers.{config.layers}.*"),
        delicate=(*found.delicate, "model.layers.*.self_attn.kv_b_proj.weight"),
        exact=exact_tensors(layer, IN_HUB),
    )


def _gguf_names(config: DeepseekConfig) -> Names:
    layer, heads, rank = GGUF.layer, config.heads, config.kv_rank
    names = {
        "q_low": "attn_q_a",
        "q": "attn_q" if config.q_rank is None else "attn_q_b",
        "kv_low": "attn_kv_a_mqa",
    }
    rows = heads * (config.head_dim - config.rotary), heads * config.v_size
    keys = Transform(
        lambda stored: stored.transpose(1, 2).reshape(-1, rank),
        lambda ours: ours.reshape(heads, -1, rank).transpose(1, 2),
    )
    values = Transform(
        lambda stored: stored.flatten(0, -2), lambda ours: ours.reshape(heads, -1, rank), moves_rows=True
    )
    target, parts = "layers.{i}.attn.kv.weight", (f"{layer}attn_k_b.weight", f"{layer}attn_v_b.weight")
    further = [
        *_attention_rules(config, layer, names),
        merge(target, parts, (keys, values), rows),
        # Older files.
        rename(target, f"{layer}attn_kv_b.weight", _keys_and_values(config)),
        *expert_rules(layer, config, IN_GGUF),
    ]
    found = decoder_names(GGUF_NAMES, config, further=further)
    return replace(
        found,
        ignored=(*found.ignored, f"blk.{config.layers}.*"),
        delicate=(*found.delicate, "blk.*.attn_v_b.weight", "blk.*.attn_kv_b.weight"),
        exact=exact_tensors(layer, IN_GGUF),
    )


LATENT_FIELDS: Mapping[str, Field] = {
    **{name: field for name, field in LLAMA_FIELDS.items() if name not in ("rope", "head_dim")},
    "kv_heads": Setting(COUNT, default=value_of("heads")),
    "rotated_size": Setting(
        COUNT,
        "qk_rope_head_dim",
        "rope.dimension_count",
        default=64,
        gguf_default=REQUIRED,
        checks=(is_positive_even,),
    ),
    "kv_rank": Setting(COUNT, "kv_lora_rank", "attention.kv_lora_rank", default=512, gguf_default=REQUIRED),
    "q_rank": Setting(
        COUNT, "q_lora_rank", "attention.q_lora_rank", default=1536, gguf_default=None, none=(None,)
    ),
    "v_size": Setting(
        COUNT,
        "v_head_dim",
        ("attention.value_length_mla", "attention.value_length"),
        default=128,
        gguf_default=REQUIRED,
    ),
    "head_dim": HeadSizes(128),
    "attention_bias": Setting(FLAG, "attention_bias", default=False, gguf_default=False),
    "rope": LatentRope(rotated="rotated_size"),
    "all_dimensions": AllDimensions(),
}
FIXED = (
    SILU,
    Fixed(
        hub="num_key_value_heads", value=lambda config: config.heads, wanted="the number of heads ({value})"
    ),
    Fixed(hub="moe_layer_freq", accepted=(1,), wanted="1, since all later layers have experts"),
    Fixed(gguf="attention.temperature_length", accepted=(0,), wanted="left out"),
)
MATRICES = (("vocab_size",), ("heads", "v_size"), ("mlp_width",), *EXPERT_MATRICES)

DEEPSEEK3 = Family(
    name="deepseek3",
    config=ConfigTable(
        DeepseekConfig,
        fields={
            **LATENT_FIELDS,
            "context_length": replace(LATENT_FIELDS["context_length"], default=4096),  # type: ignore[type-var]
            **routed_fields(experts=256, per_token=8, groups=8, kept_groups=4, factor=2.5, dense=3),
            "probability": Setting(
                GATING, (), "expert_gating_func", default="sigmoid", gguf_default="softmax"
            ),
            "best_of_group": Setting(
                COUNT, default=lambda source: 2 if source["probability"] == "sigmoid" else 1
            ),
            "corrected": Setting(FLAG, default=True, gguf_default=has_correction),
            "interleaved": Setting(FLAG, "rope_interleave", default=True),
        },
        fixed=FIXED,
        matrices=MATRICES,
    ),
    build={"causal": Deepseek},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="deepseek2",
)
"""GGUF files of DeepSeek-V2 are read by this one, too: what differs has keys there."""

DEEPSEEK2 = Family(
    name="deepseek2",
    config=ConfigTable(
        DeepseekConfig,
        fields={
            **DEEPSEEK3.config.fields,
            "context_length": LATENT_FIELDS["context_length"],
            **Method.fields(
                routed_fields(experts=64, per_token=8, groups=1, kept_groups=1, factor=1.0, dense=0)
            ),
            "probability": Setting(GATING, (), "expert_gating_func", default="softmax"),
            "renormalised": Setting(FLAG, (), "expert_weights_norm", default=False),
            "best_of_group": Setting(COUNT, default=1),
            "corrected": Setting(FLAG, default=False),
            "shared_width": SharedWidth(2),
            "interleaved": Setting(FLAG, default=True),
        },
        fixed=FIXED,
        matrices=MATRICES,
    ),
    build={"causal": Deepseek},
    hub_names=_hub_names,
    gguf_names=_gguf_names,
    gguf="deepseek2",
)
