"""Forwards to `decodery.consensus`, which had this name before, with a warning."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    warnings.warn(
        "decodery.selection is now decodery.consensus: import from there",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module("decodery.consensus"), name)
