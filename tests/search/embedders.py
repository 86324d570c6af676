"""Gives texts vectors without a model, so that tests of the index need none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from decodery.encoding.vectors.vector_settings import Metric
from decodery.search.keywords import words


class WordEmbedder:
    """Gives a text the sum of random vectors of its words; counts words as tokens, and calls."""

    def __init__(
        self, *, name: str = "words", width: int = 16, limit: int = 40, metric: Metric = "cosine"
    ) -> None:
        self.identity: dict[str, Any] = {"model": name, "width": width}
        self.width = width
        self.limit = limit
        self.metric: Metric = metric
        self.read: list[str] = []

    def count(self, text: str) -> int:
        return len(words(text))

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.read += texts
        return np.stack([self.query(text) for text in texts])

    def query(self, text: str) -> NDArray[np.float32]:
        total = np.zeros(self.width, np.float32)
        for word in words(text):
            total += (
                np.random.default_rng(crc32(word.encode())).standard_normal(self.width).astype(np.float32)
            )
        return total
