"""Holds the names of Gemma 4's tensors in both formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from decodery.models.contract import Names
from decodery.models.decoders.gemma import SANDWICH_GGUF, SANDWICH_HUB
from decodery.models.decoders.gemma4.gemma4_config import Gemma4Config
from decodery.models.decoders.names import GGUF, HUB, Spelling, decoder_names
from decodery.weights.names import Rule, merge, rename, stack


@dataclass(frozen=True)
class Parts:
    """Holds the stored names of the tensors that other decoders lack, by our names.

    Those of `layer` follow the prefix of a layer. `gate_up` are stacks in one tensor or in two.
    """

    whole: Mapping[str, str]
    layer: Mapping[str, str]
    gate_up: tuple[tuple[str, ...], ...]
    down: str


HUB_PARTS = Parts(
    whole={
        "own.embedding": "model.embed_tokens_per_layer.weight",
        "own.projection": "model.per_layer_model_projection.weight",
        "own.norm": "model.per_layer_projection_norm.weight",
    },
    layer={
        "own.gate.weight": "per_layer_input_gate.weight",
        "own.out.weight": "per_layer_projection.weight",
        "own.norm.weight": "post_per_layer_input_norm.weight",
        "scale.weight": "layer_scalar",
        "experts.router.weight": "router.proj.weight",
        "experts.router_norm.weight": "router.scale",
        "experts.scales": "router.per_expert_scale",
        "experts.dense_norm.weight": "post_feedforward_layernorm_1.weight",
        "experts.norm.weight": "pre_feedforward_layernorm_2.weight",
        "experts.post_norm.weight": "post_feedforward_layernorm_2.weight",
    },
    gate_up=(("experts.gate_up_proj",),),
    down="experts.down_proj",
)
GGUF_PARTS = Parts(
    whole={
        "own.embedding": "per_layer_token_embd.weight",
        "own.projection": "per_layer_model_proj.weight",
        "own.norm": "per_layer_proj_norm.weight",
    },
    layer={
        "own.gate.weight": "inp_gate.weight",
        "own.out.weight": "proj.weight",
        "own.norm.weight": "post_norm.weight",
        "scale.weight": "layer_output_scale.weight",
        "experts.router.weight": "ffn_gate_inp.weight",
        "experts.router_norm.weight": "ffn_gate_inp.scale",
        "experts.scales": "ffn_down_exps.scale",
        "experts.dense_norm.weight": "post_ffw_norm_1.weight",
        "experts.norm.weight": "pre_ffw_norm_2.weight",
        "experts.post_norm.weight": "post_ffw_norm_2.weight",
    },
    gate_up=(("ffn_gate_up_exps.weight",), ("ffn_gate_exps.weight", "ffn_up_exps.weight")),
    down="ffn_down_exps.weight",
)


def _rules(spelling: Spelling, parts: Parts, config: Gemma4Config) -> Sequence[Rule]:
    rules = [rename(f"{ours}.weight", stored) for ours, stored in parts.whole.items()]
    rules += [
        rename(f"layers.{{i}}.{ours}", spelling.layer + stored, optional=ours == "scale.weight")
        for ours, stored in parts.layer.items()
    ]
    for layer in range(config.layers):
        heads, prefix = config.heads_of(layer), spelling.layer.replace("{i}", str(layer))
        rows = [each * config.size_of(layer) for each in heads]
        stored = [prefix + name for name in spelling.qkv[: len(heads)]]
        rules += [
            merge(f"layers.{layer}.attn.qkv.{kind}", [f"{name}.{kind}" for name in stored], rows=rows)
            for kind in ("weight", "bias")
        ]
    if config.experts:
        inner = "layers.{i}.experts.experts"
        rules += [
            stack(f"{inner}.gate_up.weight", [spelling.layer + name for name in names], config.experts)
            for names in parts.gate_up
        ]
        rules.append(stack(f"{inner}.down.weight", [spelling.layer + parts.down], config.experts))
    return rules


def _names(spelling: Spelling, parts: Parts, config: Gemma4Config) -> Names:
    names = decoder_names(spelling, config, further=_rules(spelling, parts, config))
    # The keys and values of layers that read those of others are there, and of no use.
    unused = tuple(
        f"{spelling.layer.replace('{i}', str(layer))}{name}.*"
        for layer in range(config.layers)
        if len(config.heads_of(layer)) == 1
        for name in (*spelling.qkv[1:], spelling.norms["attn.k_norm"])
    )
    router = spelling.layer.replace("{i}", "*") + parts.layer["experts.router.weight"]
    return replace(names, ignored=(*names.ignored, *unused), exact=(router,))


def hub_names(config: Gemma4Config) -> Names:
    """Returns the names in hub checkpoints."""
    return _names(replace(HUB, norms=SANDWICH_HUB), HUB_PARTS, config)


def gguf_names(config: Gemma4Config) -> Names:
    """Returns the names in GGUF files."""
    return _names(replace(GGUF, norms=SANDWICH_GGUF), GGUF_PARTS, config)
