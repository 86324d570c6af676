"""Decodery: every way to decode open-weight language models, at serving speed, on the machine you have."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from decodery.decoding.request.grammar_params import Choice, Gbnf, JsonObject, JsonSchema, Lark, Regex
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import (
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    Sampling,
    StochasticBeamSearch,
)
from decodery.decoding.request.watermark_params import Watermark
from decodery.errors import (
    CheckpointError,
    DecoderyError,
    ModelError,
    ModelWarning,
    ParameterError,
    RequestError,
)
from decodery.version import __version__

# These need torch, so each is imported when its name is first used.
_LAZY = {
    "LLM": "decodery.llm",
    "Answer": "decodery.encoding.results",
    "Classification": "decodery.encoding.results",
    "Completion": "decodery.outputs",
    "Embeddings": "decodery.encoding.results",
    "TokenEmbeddings": "decodery.encoding.results",
    "WordEmbedding": "decodery.encoding.results",
    "EmbeddedPrompt": "decodery.engine.embedded_prompt",
    "MaskFill": "decodery.encoding.results",
    "Ranked": "decodery.encoding.results",
    "RequestOutput": "decodery.outputs",
    "StreamEvent": "decodery.outputs",
    "TaggedSpan": "decodery.encoding.results",
    "TextScore": "decodery.outputs",
    "TokenLogprobs": "decodery.decoding.chosen",
}

__all__ = [
    "LLM",
    "Answer",
    "BeamSearch",
    "CheckpointError",
    "Choice",
    "Classification",
    "Completion",
    "ContrastiveDecoding",
    "ContrastiveSearch",
    "DecoderyError",
    "DoLa",
    "DraftModel",
    "EmbeddedPrompt",
    "Embeddings",
    "Gbnf",
    "GenerationParams",
    "JsonObject",
    "JsonSchema",
    "Lark",
    "MaskFill",
    "ModelError",
    "ModelWarning",
    "ParameterError",
    "PromptLookup",
    "Ranked",
    "Regex",
    "RequestError",
    "RequestOutput",
    "Sampling",
    "StochasticBeamSearch",
    "StreamEvent",
    "TaggedSpan",
    "TextScore",
    "TokenEmbeddings",
    "TokenLogprobs",
    "Watermark",
    "WordEmbedding",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'decodery' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
