"""Holds the names that most decoders' tensors have in both formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from decodery.models.contract import Names
from decodery.models.decoders.decoder_config import DecoderConfig
from decodery.weights.names import Rule, merge, rename
from decodery.weights.transforms import Transform


@dataclass(frozen=True)
class Spelling:
    """Holds the stored name of each module, without ".weight" and ".bias".

    Names of modules in a layer follow `layer`, in which `{i}` is the layer's index. `norms` are the norms of
    a layer, by our names. `qkv` and `gate_up` are modules whose rows are one matrix in ours: three or two of
    them, one if it is stored fused, or none if a family writes its own rules. `up` is the first matrix of an
    MLP without a gate, and `positions` the table of learned positions. `derived` are glob patterns of tensors
    that follow from the config.
    """

    embedding: str
    layer: str
    norms: Mapping[str, str]
    qkv: tuple[str, ...]
    out: str
    gate_up: tuple[str, ...]
    down: str
    norm: str
    head: str
    up: str = ""
    positions: str = ""
    derived: tuple[str, ...] = ()


HUB = Spelling(
    embedding="model.embed_tokens",
    layer="model.layers.{i}.",
    norms={
        "attn_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attn.q_norm": "self_attn.q_norm",
        "attn.k_norm": "self_attn.k_norm",
    },
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.o_proj",
    gate_up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norm="model.norm",
    head="lm_head",
    derived=("model.layers.*.self_attn.rotary_emb.inv_freq",),
)
GGUF = Spelling(
    embedding="token_embd",
    layer="blk.{i}.",
    norms={
        "attn_norm": "attn_norm",
        "mlp_norm": "ffn_norm",
        "attn.q_norm": "attn_q_norm",
        "attn.k_norm": "attn_k_norm",
    },
    qkv=("attn_q", "attn_k", "attn_v"),
    out="attn_output",
    gate_up=("ffn_gate", "ffn_up"),
    down="ffn_down",
    norm="output_norm",
    head="output",
    up="ffn_up",
    derived=("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"),
)

GGUF_FUSED = replace(GGUF, qkv=("attn_qkv",))


def without_prefix(spelling: Spelling, prefix: str) -> Spelling:
    """Returns the spelling of checkpoints that leave a prefix out."""
    return replace(
        spelling,
        embedding=spelling.embedding.removeprefix(prefix),
        layer=spelling.layer.removeprefix(prefix),
        norm=spelling.norm.removeprefix(prefix),
        positions=spelling.positions.removeprefix(prefix),
        derived=tuple(name.removeprefix(prefix) for name in spelling.derived),
    )


def decoder_names(
    spelling: Spelling,
    config: DecoderConfig,
    *,
    qkv: Sequence[Transform | None] | None = None,
    linear: Transform | None = None,
    norm: Transform | None = None,
    further: Sequence[Rule] = (),
) -> Names:
    """Returns the rules for a decoder's weights and biases; those that a family's modules lack do no harm.

    `linear` is the transform of a layer's linear maps, and `qkv` those of `spelling.qkv` where they differ.
    `norm` is that of the norms' weights.
    `further` are rules for the modules that other decoders lack. What loses most quality in 4 bits for its
    size is delicate: the matrices of the vocabulary and of the values.
    """
    rows = (config.heads * config.head_dim, *[config.kv_heads * config.head_dim] * 2)
    rules = [*further, rename("head_bias", f"{spelling.head}.bias")]
    for kind in ("weight", "bias"):
        norms = {f"layers.{{i}}.{ours}": spelling.layer + name for ours, name in spelling.norms.items()}
        rules += [
            rename(f"{ours}.{kind}", f"{stored}.{kind}", norm if kind == "weight" else None)
            for ours, stored in {"norm": spelling.norm, **norms}.items()
            if stored
        ]
        rules += [
            rename(f"{ours}.{kind}", f"{stored}.{kind}")
            for ours, stored in (
                ("embedding", spelling.embedding),
                ("head", spelling.head),
                ("positions", spelling.positions),
            )
            if stored
        ]
        for ours, stored, transforms, sizes in (
            ("attn.qkv", spelling.qkv, qkv, rows if len(spelling.qkv) == 3 else None),
            ("attn.out", (spelling.out,), None, None),
            ("mlp.gate_up", spelling.gate_up, None, None),
            ("mlp.up", (spelling.up,), None, None),
            ("mlp.down", (spelling.down,), None, None),
        ):
            if stored and all(stored):
                sources = [f"{spelling.layer}{name}.{kind}" for name in stored]
                each = transforms or [linear] * len(sources)
                rules.append(merge(f"layers.{{i}}.{ours}.{kind}", sources, each, sizes))
    head = f"{spelling.head}.weight"
    if config.tied_head:
        rules.append(rename("embedding.weight", head))
    values = f"{spelling.layer.replace('{i}', '*')}{spelling.qkv[-1]}.weight" if spelling.qkv else ""
    positions = f"{spelling.positions}.weight" if spelling.positions else ""
    return Names(
        rules=tuple(rules),
        ignored=spelling.derived,
        delicate=(f"{spelling.embedding}.weight", head, *filter(None, (values, positions))),
        tied=((f"{spelling.embedding}.weight", head),) if config.tied_head else (),
    )


def either(first: Names, *others: Names) -> Names:
    """Returns the rules for checkpoints that have one of several spellings; the first one is written."""
    spellings = (first, *others)
    return Names(
        rules=tuple(rule for names in spellings for rule in names.rules),
        ignored=tuple(dict.fromkeys(name for names in spellings for name in names.ignored)),
        delicate=tuple(dict.fromkeys(name for names in spellings for name in names.delicate)),
        exact=tuple(dict.fromkeys(name for names in spellings for name in names.exact)),
        tied=tuple(dict.fromkeys(pair for names in spellings for pair in names.tied)),
    )
