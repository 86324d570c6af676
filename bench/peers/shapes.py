"""The models that are measured, as GGUF files."""

from __future__ import annotations

from pathlib import Path


def gguf_of(shape: str) -> Path:
    """The file of a shape: the default model's, or one that is written here."""
    from decodery.weights.sources import resolve

    return resolve(None)
