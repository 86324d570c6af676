"""Decodery: every way to decode open-weight language models, at serving speed, on the machine you have."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from decodery.decoding.params import GenerationParams, Sampling
from decodery.errors import CheckpointError, DecoderyError, ModelError, ParameterError, RequestError
from decodery.version import __version__

# What needs torch is imported when it is first named.
_LAZY = {
    "LLM": "decodery.llm",
    "Completion": "decodery.outputs",
    "RequestOutput": "decodery.outputs",
    "StreamEvent": "decodery.outputs",
    "TextScore": "decodery.outputs",
    "TokenLogprobs": "decodery.decoding.rows",
}

__all__ = [
    "LLM",
    "CheckpointError",
    "Completion",
    "DecoderyError",
    "GenerationParams",
    "ModelError",
    "ParameterError",
    "RequestError",
    "RequestOutput",
    "Sampling",
    "StreamEvent",
    "TextScore",
    "TokenLogprobs",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'decodery' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
