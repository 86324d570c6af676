"""Embeds sentences with sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contenders.encoders.batches import Timed


def prepare() -> None:
    """Imports the library."""
    import sentence_transformers  # noqa: F401


class SentenceTransformers(Timed):
    """Embeds with the library's own batches."""

    def __init__(self, model: Path, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model: Any = SentenceTransformer(str(model), device="cpu")

    def embed(self, texts: Sequence[str], size: int) -> list[list[float]]:
        """Returns the texts' vectors, in batches of `size`."""
        found: list[list[float]] = self._model.encode(
            list(texts), batch_size=size, normalize_embeddings=True
        ).tolist()
        return found


def load(model: Path, threads: int) -> SentenceTransformers:
    """Loads the model in float32."""
    return SentenceTransformers(model, threads)
