"""Lists the architectures that checkpoints declare, with the family and the head of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from decodery.models.contract import Family, Head
from decodery.models.encoders.rows import ENCODER_TYPES, ENCODERS, GGUF_ENCODERS
from decodery.models.readers.reading_rows import reading_rows


class Architectures(Mapping[str, tuple[Family[Any], Head]]):
    """Maps names of architectures to families and heads.

    A row has the family's place below `decodery.models`. Its module is imported when the row is
    looked up, since importing all families takes a tenth of a second.
    """

    def __init__(self, rows: Mapping[str, tuple[str, Head]]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> tuple[Family[Any], Head]:
        place, head = self._rows[name]
        module, _, family = place.rpartition(".")
        return getattr(import_module(f"decodery.models.{module}"), family), head

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows


_CAUSAL: dict[str, tuple[str, Head]] = {
    "BaiChuanForCausalLM": ("decoders.baichuan.BAICHUAN", "causal"),
    "BaichuanForCausalLM": ("decoders.baichuan.BAICHUAN", "causal"),
    "BloomForCausalLM": ("decoders.layer_norm.bloom.BLOOM", "causal"),
    "Cohere2ForCausalLM": ("decoders.layer_norm.cohere.COHERE2", "causal"),
    "CohereForCausalLM": ("decoders.layer_norm.cohere.COHERE", "causal"),
    "DeepseekV2ForCausalLM": ("decoders.experts.deepseek.DEEPSEEK2", "causal"),
    "DeepseekV3ForCausalLM": ("decoders.experts.deepseek.DEEPSEEK3", "causal"),
    "Ernie4_5_ForCausalLM": ("decoders.ernie.ERNIE", "causal"),
    "Ernie4_5_MoeForCausalLM": ("decoders.experts.ernie_moe.ERNIE_MOE", "causal"),
    "Ernie4_5ForCausalLM": ("decoders.ernie.ERNIE", "causal"),
    "Exaone4ForCausalLM": ("decoders.exaone.EXAONE4", "causal"),
    "ExaoneForCausalLM": ("decoders.exaone.EXAONE3", "causal"),
    "FalconForCausalLM": ("decoders.layer_norm.falcon.FALCON", "causal"),
    "Gemma2ForCausalLM": ("decoders.gemma.GEMMA2", "causal"),
    "Gemma3ForCausalLM": ("decoders.gemma.GEMMA3", "causal"),
    "Gemma4ForCausalLM": ("decoders.gemma4.gemma4.GEMMA4", "causal"),
    "Gemma4UnifiedForCausalLM": ("decoders.gemma4.gemma4.GEMMA4_UNIFIED", "causal"),
    "GemmaForCausalLM": ("decoders.gemma.GEMMA", "causal"),
    "Glm4ForCausalLM": ("decoders.glm.GLM4", "causal"),
    "Glm4MoeForCausalLM": ("decoders.experts.glm_moe.GLM_MOE", "causal"),
    "GlmForCausalLM": ("decoders.glm.GLM", "causal"),
    "GPT2LMHeadModel": ("decoders.layer_norm.gpt2.GPT2_FAMILY", "causal"),
    "GPTBigCodeForCausalLM": ("decoders.layer_norm.starcoder.BIGCODE", "causal"),
    "GPTBigCodeLMHeadModel": ("decoders.layer_norm.starcoder.BIGCODE", "causal"),
    "GPTJForCausalLM": ("decoders.layer_norm.gptj.GPTJ_FAMILY", "causal"),
    "GPTNeoForCausalLM": ("decoders.layer_norm.gpt_neo.GPT_NEO", "causal"),
    "GPTNeoXForCausalLM": ("decoders.layer_norm.gpt_neox.GPT_NEOX", "causal"),
    "GptOssForCausalLM": ("decoders.experts.gpt_oss.GPT_OSS", "causal"),
    "GraniteForCausalLM": ("decoders.granite.GRANITE", "causal"),
    "GraniteMoeForCausalLM": ("decoders.experts.granite_moe.GRANITE_MOE", "causal"),
    "GraniteMoeSharedForCausalLM": ("decoders.experts.granite_moe.GRANITE_MOE_SHARED", "causal"),
    "InternLM2ForCausalLM": ("decoders.internlm.INTERNLM2", "causal"),
    "InternLM3ForCausalLM": ("decoders.internlm.INTERNLM3", "causal"),
    "Llama4ForCausalLM": ("decoders.experts.llama4.LLAMA4", "causal"),
    "LlamaForCausalLM": ("decoders.llama.FAMILY", "causal"),
    "Ministral3ForCausalLM": ("decoders.mistral.MINISTRAL3", "causal"),
    "MinistralForCausalLM": ("decoders.mistral.MISTRAL", "causal"),
    "MistralForCausalLM": ("decoders.mistral.MISTRAL", "causal"),
    "MixtralForCausalLM": ("decoders.experts.mixtral.MIXTRAL", "causal"),
    "MptForCausalLM": ("decoders.layer_norm.mpt.MPT_FAMILY", "causal"),
    "MPTForCausalLM": ("decoders.layer_norm.mpt.MPT_FAMILY", "causal"),
    "Olmo2ForCausalLM": ("decoders.olmo.OLMO2", "causal"),
    "Olmo3ForCausalLM": ("decoders.olmo.OLMO3", "causal"),
    "OlmoeForCausalLM": ("decoders.experts.olmo_moe.OLMOE", "causal"),
    "OlmoForCausalLM": ("decoders.olmo.OLMO", "causal"),
    "OLMoForCausalLM": ("decoders.olmo.OLMO", "causal"),
    "OpenAIGPTLMHeadModel": ("decoders.layer_norm.gpt1.GPT1_FAMILY", "causal"),
    "OPTForCausalLM": ("decoders.layer_norm.opt.OPT_FAMILY", "causal"),
    "Phi3ForCausalLM": ("decoders.phi3.PHI3", "causal"),
    "PhiForCausalLM": ("decoders.layer_norm.phi.PHI", "causal"),
    "PhiMoEForCausalLM": ("decoders.experts.phi_moe.PHI_MOE", "causal"),
    "PhimoeForCausalLM": ("decoders.experts.phi_moe.PHI_MOE", "causal"),
    "Qwen2ForCausalLM": ("decoders.qwen.QWEN2", "causal"),
    "Qwen2MoeForCausalLM": ("decoders.experts.qwen_moe.QWEN2_MOE", "causal"),
    "Qwen3ForCausalLM": ("decoders.qwen.QWEN3", "causal"),
    "Qwen3MoeForCausalLM": ("decoders.experts.qwen_moe.QWEN3_MOE", "causal"),
    "RWForCausalLM": ("decoders.layer_norm.falcon.FALCON", "causal"),
    "SeedOssForCausalLM": ("decoders.seed_oss.SEED_OSS", "causal"),
    "SmolLM3ForCausalLM": ("decoders.smollm.SMOLLM3", "causal"),
    "StableLMEpochForCausalLM": ("decoders.layer_norm.stablelm.STABLELM", "causal"),
    "StableLmForCausalLM": ("decoders.layer_norm.stablelm.STABLELM", "causal"),
    "Starcoder2ForCausalLM": ("decoders.layer_norm.starcoder.STARCODER2", "causal"),
}
# Entries of `architectures` in a config.json.
HUB = Architectures({**ENCODERS, **_CAUSAL, **reading_rows(_CAUSAL)})
# Values of `model_type` in a config.json, for the architecture of a model that names none, or of a text part.
MODEL_TYPES: Mapping[str, str] = {
    **ENCODER_TYPES,
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
        **GGUF_ENCODERS,
        "baichuan": ("decoders.baichuan.BAICHUAN", "causal"),
        "bloom": ("decoders.layer_norm.bloom.BLOOM", "causal"),
        "chatglm": ("decoders.glm.GLM", "causal"),
        "cohere2": ("decoders.layer_norm.cohere.COHERE2", "causal"),
        "command-r": ("decoders.layer_norm.cohere.COHERE", "causal"),
        "deepseek2": ("decoders.experts.deepseek.DEEPSEEK3", "causal"),
        "ernie4_5": ("decoders.ernie.ERNIE", "causal"),
        "ernie4_5-moe": ("decoders.experts.ernie_moe.ERNIE_MOE", "causal"),
        "exaone": ("decoders.exaone.EXAONE3", "causal"),
        "exaone4": ("decoders.exaone.EXAONE4", "causal"),
        "falcon": ("decoders.layer_norm.falcon.FALCON", "causal"),
        "gemma": ("decoders.gemma.GEMMA", "causal"),
        "gemma2": ("decoders.gemma.GEMMA2", "causal"),
        "gemma3": ("decoders.gemma.GEMMA3", "causal"),
        "gemma4": ("decoders.gemma4.gemma4.GEMMA4", "causal"),
        "glm4": ("decoders.glm.GLM4", "causal"),
        "glm4moe": ("decoders.experts.glm_moe.GLM_MOE", "causal"),
        "gpt-oss": ("decoders.experts.gpt_oss.GPT_OSS", "causal"),
        "gpt2": ("decoders.layer_norm.gpt2.GPT2_FAMILY", "causal"),
        "gptneox": ("decoders.layer_norm.gpt_neox.GPT_NEOX", "causal"),
        "granite": ("decoders.granite.GRANITE", "causal"),
        "granitemoe": ("decoders.experts.granite_moe.GRANITE_MOE_SHARED", "causal"),
        "internlm2": ("decoders.internlm.INTERNLM2", "causal"),
        "llama": ("decoders.llama.FAMILY", "causal"),
        "llama4": ("decoders.experts.llama4.LLAMA4", "causal"),
        "mistral3": ("decoders.mistral.MINISTRAL3", "causal"),
        "mpt": ("decoders.layer_norm.mpt.MPT_FAMILY", "causal"),
        "olmo": ("decoders.olmo.OLMO", "causal"),
        "olmo2": ("decoders.olmo.OLMO3", "causal"),
        "olmoe": ("decoders.experts.olmo_moe.OLMOE", "causal"),
        "phi2": ("decoders.layer_norm.phi.PHI", "causal"),
        "phi3": ("decoders.phi3.PHI3", "causal"),
        "phimoe": ("decoders.experts.phi_moe.PHI_MOE", "causal"),
        "qwen2": ("decoders.qwen.QWEN2", "causal"),
        "qwen2moe": ("decoders.experts.qwen_moe.QWEN2_MOE", "causal"),
        "qwen3": ("decoders.qwen.QWEN3", "causal"),
        "qwen3moe": ("decoders.experts.qwen_moe.QWEN3_MOE", "causal"),
        "seed_oss": ("decoders.seed_oss.SEED_OSS", "causal"),
        "smollm3": ("decoders.smollm.SMOLLM3", "causal"),
        "stablelm": ("decoders.layer_norm.stablelm.STABLELM", "causal"),
        "starcoder": ("decoders.layer_norm.starcoder.BIGCODE", "causal"),
        "starcoder2": ("decoders.layer_norm.starcoder.STARCODER2", "causal"),
    }
)
# Those of files with experts, where the format has one name for two families.
GGUF_WITH_EXPERTS = Architectures({"llama": ("decoders.experts.mixtral.MIXTRAL", "causal")})
