"""Lists the architectures of decoders that read texts: without a head, and with one of classes."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.models.contract import Head

STEMS = [
    "Bloom",
    "Cohere",
    "Cohere2",
    "DeepseekV2",
    "DeepseekV3",
    "Ernie4_5",
    "Ernie4_5_Moe",
    "Exaone4",
    "Falcon",
    "Gemma",
    "Gemma2",
    "Gemma3Text",
    "Glm",
    "Glm4",
    "Glm4Moe",
    "GPT2",
    "GPTBigCode",
    "GPTJ",
    "GPTNeo",
    "GPTNeoX",
    "GptOss",
    "Granite",
    "GraniteMoe",
    "GraniteMoeShared",
    "Llama",
    "Ministral",
    "Ministral3",
    "Mistral",
    "Mixtral",
    "Mpt",
    "Olmo",
    "Olmo2",
    "Olmo3",
    "Olmoe",
    "OpenAIGPT",
    "Phi",
    "Phi3",
    "Phimoe",
    "Qwen2",
    "Qwen2Moe",
    "Qwen3",
    "Qwen3Moe",
    "SeedOss",
    "SmolLM3",
    "StableLm",
    "Starcoder2",
]
WITHOUT_CLASSES = frozenset(
    [
        "Cohere",
        "Cohere2",
        "Ernie4_5",
        "Ernie4_5_Moe",
        "Glm4Moe",
        "Granite",
        "GraniteMoe",
        "GraniteMoeShared",
        "Olmoe",
    ]
)
"""The stems that transformers has no classes for."""
OTHER_STEMS = {"Gemma3Text": "Gemma3"}
"""The stems of architectures that continue texts, where they differ."""


def reading_rows(causal: Mapping[str, tuple[str, Head]]) -> dict[str, tuple[str, Head]]:
    """Returns the rows of decoders that read texts, from those of the architectures that continue them."""
    found: dict[str, tuple[str, Head]] = {}
    for stem in STEMS:
        names = (f"{OTHER_STEMS.get(stem, stem)}{end}" for end in ("ForCausalLM", "LMHeadModel"))
        place = next(causal[name][0] for name in names if name in causal)
        found[f"{stem}Model"] = (place, "states")
        if stem not in WITHOUT_CLASSES:
            found[f"{stem}ForSequenceClassification"] = (place, "classes")
    return found
