"""Says what an index needs of a model that gives texts vectors, and offers an encoder as such a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from decodery.encoding.spans import lowered
from decodery.encoding.vectors.vector_settings import Metric
from decodery.llm import LLM
from decodery.search.ranking import Vectors
from decodery.search.store import LATE_CHUNKING
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


@runtime_checkable
class ContextEmbedder(Protocol):
    """Gives parts of a text vectors that depend on the text around them."""

    def in_context(self, text: str, spans: Sequence[tuple[int, int]]) -> Vectors:
        """Returns the vectors [parts, width] of parts of a text, each from one character to another."""
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


class LateEmbedder(EncoderEmbedder):
    """Gives chunks vectors with an open encoder that reads as much of their file as fits together with them.

    Raises `ModelError` for an encoder whose vectors are not the mean of states.
    """

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm)
        llm.embed_parts("a", [(0, 1)], document=True)
        self.identity[LATE_CHUNKING] = True

    def in_context(self, text: str, spans: Sequence[tuple[int, int]]) -> Vectors:
        """Returns the vectors [parts, width] of consecutive parts of a text, read in as few pieces as fit."""
        found: list[Vectors] = []
        first = 0
        while first < len(spans):
            last = self._last_that_fits(text, spans, first)
            start = spans[first][0]
            places = [(begin - start, end - start) for begin, end in spans[first : last + 1]]
            found.append(self._llm.embed_parts(text[start : spans[last][1]], places, document=True))
            first = last + 1
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def _last_that_fits(self, text: str, spans: Sequence[tuple[int, int]], first: int) -> int:
        """Returns the last of the parts from `first` on that the model can read with it."""
        last, total = first, self.count(text[slice(*spans[first])])
        while last + 1 < len(spans):
            total += self.count(text[spans[last][1] : spans[last + 1][1]])
            if total > self.limit:
                break
            last += 1
        # Tokens of a whole may be more than those of its parts.
        while last > first and self.count(text[spans[first][0] : spans[last][1]]) > self.limit:
            last -= 1
        return last
