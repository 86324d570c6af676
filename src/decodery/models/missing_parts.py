"""Names the parts of unsupported models that no family here has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from decodery.weights.formats.checkpoint import Checkpoint


@dataclass(frozen=True)
class Sign:
    """Says how a part of a model is recognised.

    `hub` are keys of a config.json, `gguf` keys of a GGUF file behind the architecture, `kinds` entries of
    `layer_types`, and `tensors` patterns of names.
    """

    hub: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


GATED_DELTA = "gated delta layers"
MAMBA = "Mamba layers"
SIGNS: Mapping[str, Sign] = {
    GATED_DELTA: Sign(
        hub=("linear_conv_kernel_dim", "linear_num_value_heads", "linear_attn_config"),
        gguf=("kda.head_dim",),
        kinds=("linear_attention",),
        tensors=("*.linear_attn.*",),
    ),
    MAMBA: Sign(
        hub=("mamba_d_state", "mamba_d_conv", "mamba_num_heads", "ssm_cfg", "ssm_state_size", "state_size"),
        gguf=("ssm.state_size",),
        kinds=("mamba", "mamba2"),
        tensors=("*.mamba.*", "*.mixer.A_log", "*.ssm_a*"),
    ),
    "short convolutions": Sign(
        hub=("conv_L_cache",), gguf=("shortconv.l_cache",), kinds=("conv",), tensors=("*.shortconv.*",)
    ),
    "RWKV layers": Sign(gguf=("wkv.head_size",), tensors=("rwkv.*", "*.time_mix_*")),
    "gated linear recurrences": Sign(hub=("lru_width",), tensors=("*.rg_lru.*",)),
    "xLSTM layers": Sign(hub=("mlstm_round_up_to_multiple_of",), tensors=("*.mlstm_layer.*",)),
    "alternating updates (AltUp)": Sign(hub=("altup_num_inputs",), gguf=("altup.num_inputs",)),
    "layers that read images": Sign(hub=("cross_attention_layers",), tensors=("*.cross_attn.*",)),
    "a beam search for answers": Sign(
        tensors=("start_logits.dense.*", "end_logits.dense_*", "answer_class.*")
    ),
    "numbers of heads that differ by layer": Sign(hub=("num_query_heads", "block_configs")),
}
# llama.cpp stores the state of gated delta layers under Mamba's keys.
DELTA_IN_GGUF = ("qwen3next", "qwen35", "qwen35moe", "kimi-linear")


def missing_parts(checkpoint: Checkpoint, architecture: str) -> Sequence[str]:
    """Returns the parts of a checkpoint's model that no family has, as far as they are recognised."""
    config = checkpoint.config
    found = [
        part
        for part, sign in SIGNS.items()
        if any(config.get(key) is not None for key in _keys(sign, checkpoint, architecture))
        or any(kind in sign.kinds for kind in _kinds(config.get("layer_types")))
        or any(fnmatchcase(name, pattern) for name in checkpoint.tensors for pattern in sign.tensors)
    ]
    if MAMBA in found and architecture in DELTA_IN_GGUF:
        found = [part for part in found if part not in (MAMBA, GATED_DELTA)] + [GATED_DELTA]
    return found + (["an encoder"] if config.get("is_encoder_decoder") else [])


def _keys(sign: Sign, checkpoint: Checkpoint, architecture: str) -> Sequence[str]:
    return [f"{architecture}.{key}" for key in sign.gguf] if checkpoint.format == "gguf" else sign.hub


def _kinds(layer_types: object) -> Sequence[object]:
    return layer_types if isinstance(layer_types, list) else ()
