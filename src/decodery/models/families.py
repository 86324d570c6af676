"""Lists the supported architectures: the family and the head of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import Family, Head, Names
from decodery.models.missing_parts import missing_parts
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.mxfp4 import is_mxfp4


class Architectures(Mapping[str, tuple[Family[Any], Head]]):
    """Maps names of architectures to families and heads.

    A row has the family's place below `decodery.models.decoders`. Its module is imported when the row is
    looked up, since importing all families takes a tenth of a second.
    """

    def __init__(self, rows: Mapping[str, tuple[str, Head]]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> tuple[Family[Any], Head]:
        place, head = self._rows[name]
        module, _, family = place.rpartition(".")
        return getattr(import_module(f"decodery.models.decoders.{module}"), family), head

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows


# Entries of `architectures` in a config.json.
HUB = Architectures(
    {
        "BaiChuanForCausalLM": ("baichuan.BAICHUAN", "causal"),
        "BaichuanForCausalLM": ("baichuan.BAICHUAN", "causal"),
        "BloomForCausalLM": ("layer_norm.bloom.BLOOM", "causal"),
        "Cohere2ForCausalLM": ("layer_norm.cohere.COHERE2", "causal"),
        "CohereForCausalLM": ("layer_norm.cohere.COHERE", "causal"),
        "DeepseekV2ForCausalLM": ("experts.deepseek.DEEPSEEK2", "causal"),
        "DeepseekV3ForCausalLM": ("experts.deepseek.DEEPSEEK3", "causal"),
        "Ernie4_5_ForCausalLM": ("ernie.ERNIE", "causal"),
        "Ernie4_5_MoeForCausalLM": ("experts.ernie_moe.ERNIE_MOE", "causal"),
        "Ernie4_5ForCausalLM": ("ernie.ERNIE", "causal"),
        "Exaone4ForCausalLM": ("exaone.EXAONE4", "causal"),
        "ExaoneForCausalLM": ("exaone.EXAONE3", "causal"),
        "FalconForCausalLM": ("layer_norm.falcon.FALCON", "causal"),
        "Gemma2ForCausalLM": ("gemma.GEMMA2", "causal"),
        "Gemma3ForCausalLM": ("gemma.GEMMA3", "causal"),
        "Gemma4ForCausalLM": ("gemma4.gemma4.GEMMA4", "causal"),
        "Gemma4UnifiedForCausalLM": ("gemma4.gemma4.GEMMA4_UNIFIED", "causal"),
        "GemmaForCausalLM": ("gemma.GEMMA", "causal"),
        "Glm4ForCausalLM": ("glm.GLM4", "causal"),
        "Glm4MoeForCausalLM": ("experts.glm_moe.GLM_MOE", "causal"),
        "GlmForCausalLM": ("glm.GLM", "causal"),
        "GPT2LMHeadModel": ("layer_norm.gpt2.GPT2_FAMILY", "causal"),
        "GPTBigCodeForCausalLM": ("layer_norm.starcoder.BIGCODE", "causal"),
        "GPTBigCodeLMHeadModel": ("layer_norm.starcoder.BIGCODE", "causal"),
        "GPTJForCausalLM": ("layer_norm.gptj.GPTJ_FAMILY", "causal"),
        "GPTNeoForCausalLM": ("layer_norm.gpt_neo.GPT_NEO", "causal"),
        "GPTNeoXForCausalLM": ("layer_norm.gpt_neox.GPT_NEOX", "causal"),
        "GptOssForCausalLM": ("experts.gpt_oss.GPT_OSS", "causal"),
        "GraniteForCausalLM": ("granite.GRANITE", "causal"),
        "GraniteMoeForCausalLM": ("experts.granite_moe.GRANITE_MOE", "causal"),
        "GraniteMoeSharedForCausalLM": ("experts.granite_moe.GRANITE_MOE_SHARED", "causal"),
        "InternLM2ForCausalLM": ("internlm.INTERNLM2", "causal"),
        "InternLM3ForCausalLM": ("internlm.INTERNLM3", "causal"),
        "Llama4ForCausalLM": ("experts.llama4.LLAMA4", "causal"),
        "LlamaForCausalLM": ("llama.FAMILY", "causal"),
        "Ministral3ForCausalLM": ("mistral.MINISTRAL3", "causal"),
        "MinistralForCausalLM": ("mistral.MISTRAL", "causal"),
        "MistralForCausalLM": ("mistral.MISTRAL", "causal"),
        "MixtralForCausalLM": ("experts.mixtral.MIXTRAL", "causal"),
        "MptForCausalLM": ("layer_norm.mpt.MPT_FAMILY", "causal"),
        "MPTForCausalLM": ("layer_norm.mpt.MPT_FAMILY", "causal"),
        "Olmo2ForCausalLM": ("olmo.OLMO2", "causal"),
        "Olmo3ForCausalLM": ("olmo.OLMO3", "causal"),
        "OlmoeForCausalLM": ("experts.olmo_moe.OLMOE", "causal"),
        "OlmoForCausalLM": ("olmo.OLMO", "causal"),
        "OLMoForCausalLM": ("olmo.OLMO", "causal"),
        "OpenAIGPTLMHeadModel": ("layer_norm.gpt1.GPT1_FAMILY", "causal"),
        "OPTForCausalLM": ("layer_norm.opt.OPT_FAMILY", "causal"),
        "Phi3ForCausalLM": ("phi3.PHI3", "causal"),
        "PhiForCausalLM": ("layer_norm.phi.PHI", "causal"),
        "PhiMoEForCausalLM": ("experts.phi_moe.PHI_MOE", "causal"),
        "PhimoeForCausalLM": ("experts.phi_moe.PHI_MOE", "causal"),
        "Qwen2ForCausalLM": ("qwen.QWEN2", "causal"),
        "Qwen2MoeForCausalLM": ("experts.qwen_moe.QWEN2_MOE", "causal"),
        "Qwen3ForCausalLM": ("qwen.QWEN3", "causal"),
        "Qwen3MoeForCausalLM": ("experts.qwen_moe.QWEN3_MOE", "causal"),
        "RWForCausalLM": ("layer_norm.falcon.FALCON", "causal"),
        "SeedOssForCausalLM": ("seed_oss.SEED_OSS", "causal"),
        "SmolLM3ForCausalLM": ("smollm.SMOLLM3", "causal"),
        "StableLMEpochForCausalLM": ("layer_norm.stablelm.STABLELM", "causal"),
        "StableLmForCausalLM": ("layer_norm.stablelm.STABLELM", "causal"),
        "Starcoder2ForCausalLM": ("layer_norm.starcoder.STARCODER2", "causal"),
    }
)
# Values of `model_type` in a config.json, for the architecture of a model that names none, or of a text part.
MODEL_TYPES: Mapping[str, str] = {
    "RefinedWeb": "RWForCausalLM",
    "RefinedWebModel": "RWForCausalLM",
    "baichuan": "BaichuanForCausalLM",
    "bloom": "BloomForCausalLM",
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "ernie4_5": "Ernie4_5ForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "exaone": "ExaoneForCausalLM",
    "exaone4": "Exaone4ForCausalLM",
    "falcon": "FalconForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "gemma4_unified_text": "Gemma4UnifiedForCausalLM",
    "glm": "GlmForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt-sw3": "GPT2LMHeadModel",
    "gpt_bigcode": "GPTBigCodeForCausalLM",
    "gpt_neo": "GPTNeoForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "gptj": "GPTJForCausalLM",
    "granite": "GraniteForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "internlm3": "InternLM3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "ministral": "MinistralForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "mpt": "MptForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "openai-gpt": "OpenAIGPTLMHeadModel",
    "opt": "OPTForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phimoe": "PhimoeForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "stablelm_epoch": "StableLMEpochForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
}
# Values of `general.architecture` in a GGUF file.
GGUF = Architectures(
    {
        "baichuan": ("baichuan.BAICHUAN", "causal"),
        "bloom": ("layer_norm.bloom.BLOOM", "causal"),
        "chatglm": ("glm.GLM", "causal"),
        "cohere2": ("layer_norm.cohere.COHERE2", "causal"),
        "command-r": ("layer_norm.cohere.COHERE", "causal"),
        "deepseek2": ("experts.deepseek.DEEPSEEK3", "causal"),
        "ernie4_5": ("ernie.ERNIE", "causal"),
        "ernie4_5-moe": ("experts.ernie_moe.ERNIE_MOE", "causal"),
        "exaone": ("exaone.EXAONE3", "causal"),
        "exaone4": ("exaone.EXAONE4", "causal"),
        "falcon": ("layer_norm.falcon.FALCON", "causal"),
        "gemma": ("gemma.GEMMA", "causal"),
        "gemma2": ("gemma.GEMMA2", "causal"),
        "gemma3": ("gemma.GEMMA3", "causal"),
        "gemma4": ("gemma4.gemma4.GEMMA4", "causal"),
        "glm4": ("glm.GLM4", "causal"),
        "glm4moe": ("experts.glm_moe.GLM_MOE", "causal"),
        "gpt-oss": ("experts.gpt_oss.GPT_OSS", "causal"),
        "gpt2": ("layer_norm.gpt2.GPT2_FAMILY", "causal"),
        "gptneox": ("layer_norm.gpt_neox.GPT_NEOX", "causal"),
        "granite": ("granite.GRANITE", "causal"),
        "granitemoe": ("experts.granite_moe.GRANITE_MOE_SHARED", "causal"),
        "internlm2": ("internlm.INTERNLM2", "causal"),
        "llama": ("llama.FAMILY", "causal"),
        "llama4": ("experts.llama4.LLAMA4", "causal"),
        "mistral3": ("mistral.MINISTRAL3", "causal"),
        "mpt": ("layer_norm.mpt.MPT_FAMILY", "causal"),
        "olmo": ("olmo.OLMO", "causal"),
        "olmo2": ("olmo.OLMO3", "causal"),
        "olmoe": ("experts.olmo_moe.OLMOE", "causal"),
        "phi2": ("layer_norm.phi.PHI", "causal"),
        "phi3": ("phi3.PHI3", "causal"),
        "phimoe": ("experts.phi_moe.PHI_MOE", "causal"),
        "qwen2": ("qwen.QWEN2", "causal"),
        "qwen2moe": ("experts.qwen_moe.QWEN2_MOE", "causal"),
        "qwen3": ("qwen.QWEN3", "causal"),
        "qwen3moe": ("experts.qwen_moe.QWEN3_MOE", "causal"),
        "seed_oss": ("seed_oss.SEED_OSS", "causal"),
        "smollm3": ("smollm.SMOLLM3", "causal"),
        "stablelm": ("layer_norm.stablelm.STABLELM", "causal"),
        "starcoder": ("layer_norm.starcoder.BIGCODE", "causal"),
        "starcoder2": ("layer_norm.starcoder.STARCODER2", "causal"),
    }
)
# Those of files with experts, where the format has one name for two families.
GGUF_WITH_EXPERTS = Architectures({"llama": ("experts.mixtral.MIXTRAL", "causal")})


@dataclass(frozen=True)
class Architecture:
    """Holds what a checkpoint's architecture means."""

    name: str
    family: Family[Any]
    head: Head


def find_family(checkpoint: Checkpoint) -> Architecture:
    """Returns the architecture that a checkpoint declares.

    Raises ModelError when it is not supported, with the parts that no family has and the nearest ones.
    """
    table, name = _gguf(checkpoint) if checkpoint.format == "gguf" else (HUB, _hub_name(checkpoint))
    if name in table:
        return Architecture(name, *table[name])
    known = [*HUB, *GGUF]
    lowered = {each.lower(): each for each in known}
    near = [lowered[each] for each in get_close_matches(name.lower(), lowered)]
    nearest = f"the nearest is {' or '.join(near)}; " if near else ""
    parts = missing_parts(checkpoint, name)
    lacking = f", since it has {' and '.join(parts)}" if parts else ""
    raise ModelError(
        f"{checkpoint.path}: the architecture {name} is not supported{lacking}; "
        f"{nearest}decodery models --supported lists all that are"
    )


def names_of(family: Family[Any], config: Any, checkpoint: Checkpoint) -> Names:
    """Returns the names of a family's tensors in the checkpoint's format."""
    names = family.gguf_names if checkpoint.format == "gguf" else family.hub_names
    assert names is not None
    return names(config)


def _gguf(checkpoint: Checkpoint) -> tuple[Mapping[str, tuple[Family[Any], Head]], str]:
    """Returns the table of a GGUF file's architecture, and its name."""
    name = CheckpointKeys(checkpoint.config, str(checkpoint.path)).text("general.architecture")
    with_experts = name in GGUF_WITH_EXPERTS and checkpoint.config.get(f"{name}.expert_count")
    return GGUF_WITH_EXPERTS if with_experts else GGUF, name


def _hub_name(checkpoint: Checkpoint) -> str:
    """Returns the architecture of a folder in the spelling of `HUB` if it is one of these."""
    name = _declared_name(checkpoint)
    if checkpoint.config.get("quantization_config") and not is_mxfp4(checkpoint.config):
        raise ModelError(
            f"{checkpoint.path}: config.json has a quantization_config, which is not supported; "
            "use the unquantised checkpoint or a GGUF file"
        )
    spellings = {_spelled(known): known for known in HUB}
    return name if name in HUB else spellings.get(_spelled(name), name)


def _declared_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures") or None
    if checkpoint.part is not None or (names is None and checkpoint.config.get("model_type")):
        place = ", text_config" if checkpoint.part is not None else ""
        kind = CheckpointKeys(checkpoint.config, f"{checkpoint.path}{place}").text("model_type")
        return MODEL_TYPES.get(kind, kind)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ModelError(f"{checkpoint.path}: config.json must name one architecture under architectures")
    return names[0]


def _spelled(name: str) -> str:
    """Returns a name without capitals and signs, in which writers of configs differ."""
    return "".join(filter(str.isalnum, name.lower()))
