"""Embeds sentences with Decodery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.contenders.encoders.batches import Timed


def prepare() -> None:
    """Imports the library."""
    import decodery.llm  # noqa: F401


class Decodery(Timed):
    """Embeds with the library's own batches."""

    serving = "packed batches"

    def __init__(self, model: Path, threads: int, quantization: str | None = None) -> None:
        from decodery import LLM

        self._llm = LLM(model, threads=threads, quantization=quantization)

    def embed(self, texts: Sequence[str], size: int) -> list[list[float]]:
        """Returns the texts' vectors; the library chooses its batches."""
        found: list[list[float]] = self._llm.embed(list(texts), progress=False).vectors.tolist()
        return found


def load(model: Path, threads: int) -> Decodery:
    """Loads the model in float32."""
    return Decodery(model, threads)
