"""Says what an index needs of a model that gives texts vectors, and offers an encoder as such a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from decodery.encoding.spans import lowered
from decodery.encoding.vectors.vector_settings import Metric
from decodery.llm import LLM
from decodery.search.ranking import Vectors
from decodery.weights.layouts.packed_cache import weight_forms
from decodery.weights.sources.model_digest import model_digest


class Embedder(Protocol):
    """Gives texts vectors, and tells on what these depend."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Returns all on which the vectors depend, by the names that errors use."""
        ...

    @property
    def limit(self) -> int:
        """Returns the number of tokens that a document may have, as `count` counts them."""
        ...

    @property
    def metric(self) -> Metric:
        """Returns how two vectors are compared."""
        ...

    def count(self, text: str) -> int:
        """Returns the number of a text's tokens, without those around it."""
        ...

    def documents(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors [texts, width] of texts that are searched."""
        ...

    def query(self, text: str) -> Vectors:
        """Returns the vector [width] of a text that is searched for."""
        ...


class EncoderEmbedder:
    """Gives texts vectors with an open encoder and the prompts of its folder."""

    def __init__(self, llm: LLM) -> None:
        parts = llm.encoder
        settings = parts.vectors
        self._llm = llm
        self._tokenizer = parts.tokenizer
        self._lowers = settings.lowers
        document = settings.prompt(document=True)
        self.metric: Metric = settings.metric
        # A text may have another token where a prompt stands before it.
        before = self.count(document) + 1 if document else 0
        self.limit = settings.limit - parts.tokenizer.single_layout.added - before
        self.identity = {
            "model": model_digest(parts.folder),
            "weights": weight_forms(parts.model),
            "pooling": "+".join(settings.pooling),
            "normalize": settings.normalizes,
            "width": settings.width,
            "query prompt": settings.prompt(query=True),
            "document prompt": document,
            "metric": settings.metric,
        }

    def count(self, text: str) -> int:
        """Returns the number of a text's tokens, without those around it."""
        text = lowered(text) if self._lowers else text
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def documents(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors [texts, width] of texts that are searched."""
        return np.asarray(self._llm.embed(list(texts), document=True, progress=False).vectors, np.float32)

    def query(self, text: str) -> Vectors:
        """Returns the vector [width] of a text that is searched for."""
        return np.asarray(self._llm.embed(text, query=True, progress=False).vectors[0], np.float32)
