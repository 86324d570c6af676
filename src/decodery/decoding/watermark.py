"""Forwards to its new module, `decodery.decoding.processors.watermark`, with a warning."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    warnings.warn(
        "decodery.decoding.watermark is now decodery.decoding.processors.watermark: import from there",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module("decodery.decoding.processors.watermark"), name)
