"""Lists the supported architectures: the family and the head of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import Family, Head, Names
from decodery.models.decoders import (
    bloom,
    falcon,
    gpt1,
    gpt2,
    gpt_neo,
    gpt_neox,
    gptj,
    llama,
    mistral,
    mpt,
    opt,
    phi,
    qwen,
    smollm,
    stablelm,
    starcoder,
)
from decodery.weights.formats.checkpoint import Checkpoint

# Entries of `architectures` in a config.json.
HUB: Mapping[str, tuple[Family[Any], Head]] = {
    "BloomForCausalLM": (bloom.BLOOM, "causal"),
    "FalconForCausalLM": (falcon.FALCON, "causal"),
    "GPT2LMHeadModel": (gpt2.GPT2_FAMILY, "causal"),
    "GPTBigCodeForCausalLM": (starcoder.BIGCODE, "causal"),
    "GPTBigCodeLMHeadModel": (starcoder.BIGCODE, "causal"),
    "GPTJForCausalLM": (gptj.GPTJ_FAMILY, "causal"),
    "GPTNeoForCausalLM": (gpt_neo.GPT_NEO, "causal"),
    "GPTNeoXForCausalLM": (gpt_neox.GPT_NEOX, "causal"),
    "LlamaForCausalLM": (llama.FAMILY, "causal"),
    "MPTForCausalLM": (mpt.MPT_FAMILY, "causal"),
    "MinistralForCausalLM": (mistral.MISTRAL, "causal"),
    "MistralForCausalLM": (mistral.MISTRAL, "causal"),
    "MptForCausalLM": (mpt.MPT_FAMILY, "causal"),
    "OPTForCausalLM": (opt.OPT_FAMILY, "causal"),
    "OpenAIGPTLMHeadModel": (gpt1.GPT1_FAMILY, "causal"),
    "PhiForCausalLM": (phi.PHI, "causal"),
    "Qwen2ForCausalLM": (qwen.QWEN2, "causal"),
    "Qwen3ForCausalLM": (qwen.QWEN3, "causal"),
    "RWForCausalLM": (falcon.FALCON, "causal"),
    "SmolLM3ForCausalLM": (smollm.SMOLLM3, "causal"),
    "StableLMEpochForCausalLM": (stablelm.STABLELM, "causal"),
    "StableLmForCausalLM": (stablelm.STABLELM, "causal"),
    "Starcoder2ForCausalLM": (starcoder.STARCODER2, "causal"),
}
# Values of `general.architecture` in a GGUF file.
GGUF: Mapping[str, tuple[Family[Any], Head]] = {
    "bloom": (bloom.BLOOM, "causal"),
    "falcon": (falcon.FALCON, "causal"),
    "gpt2": (gpt2.GPT2_FAMILY, "causal"),
    "gptneox": (gpt_neox.GPT_NEOX, "causal"),
    "llama": (llama.FAMILY, "causal"),
    "mpt": (mpt.MPT_FAMILY, "causal"),
    "phi2": (phi.PHI, "causal"),
    "qwen2": (qwen.QWEN2, "causal"),
    "qwen3": (qwen.QWEN3, "causal"),
    "smollm3": (smollm.SMOLLM3, "causal"),
    "stablelm": (stablelm.STABLELM, "causal"),
    "starcoder": (starcoder.BIGCODE, "causal"),
    "starcoder2": (starcoder.STARCODER2, "causal"),
}


@dataclass(frozen=True)
class Architecture:
    """Holds what a checkpoint's architecture means."""

    name: str
    family: Family[Any]
    head: Head


def find_family(checkpoint: Checkpoint) -> Architecture:
    """Returns the architecture that a checkpoint declares.

    Raises ModelError that names the nearest supported ones when it is not supported.
    """
    table, name = (
        (GGUF, _gguf_name(checkpoint)) if checkpoint.format == "gguf" else (HUB, _hub_name(checkpoint))
    )
    if name in table:
        return Architecture(name, *table[name])
    known = [*HUB, *GGUF]
    near = get_close_matches(name, known)
    nearest = f"the nearest is {' or '.join(near)}; " if near else ""
    raise ModelError(
        f"{checkpoint.path}: the architecture {name} is not supported; "
        f"{nearest}supported are {', '.join(known)}"
    )


def names_of(family: Family[Any], config: Any, checkpoint: Checkpoint) -> Names:
    """Returns the names of a family's tensors in the checkpoint's format."""
    names = family.gguf_names if checkpoint.format == "gguf" else family.hub_names
    assert names is not None
    return names(config)


def _gguf_name(checkpoint: Checkpoint) -> str:
    return CheckpointKeys(checkpoint.config, str(checkpoint.path)).text("general.architecture")


def _hub_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ModelError(f"{checkpoint.path}: config.json must name one architecture under architectures")
    if checkpoint.config.get("quantization_config"):
        raise ModelError(
            f"{checkpoint.path}: config.json has a quantization_config, which is not supported; "
            "use the unquantised checkpoint or a GGUF file"
        )
    return names[0]
