"""Asks an encoder for vectors, and says what these depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from decodery.errors import ParameterError
from decodery.evaluation.vectors.contract import Role, Vectors
from decodery.evaluation.vectors.vector_store import VectorStore
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.llm import LLM
from decodery.weights.layouts.packed_cache import weight_forms
from decodery.weights.sources.model_digest import model_digest

# Texts that are embedded together, after which their vectors are kept.
BLOCK = 256


class EncoderSubject:
    """Holds an encoder that is measured. The end of a text that is too long is cut off.

    Raises `ParameterError` for a model that writes texts.
    """

    def __init__(self, llm: LLM, *, name: str = "encoder") -> None:
        if not llm.is_encoder:
            raise ParameterError(
                f"{name} writes texts, and this task compares vectors: give an encoder, such as minilm"
            )
        self.llm = llm
        self.name = name

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Returns all of the encoder on which its vectors depend."""
        parts = self.llm.encoder
        return {
            "files": model_digest(parts.folder),
            "weights": weight_forms(parts.model),
            "backend": "native" if isinstance(parts.model.kernels, NativeKernels) else "torch",
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns how vectors are made, for the report."""
        return {"tokens": self.llm.text_limit, "long texts": "cut"}

    def embedder(
        self, store: VectorStore | None = None, advance: Callable[[], None] = lambda: None
    ) -> Embedder:
        """Returns a function that gives texts vectors; `advance` is called for each text."""
        return Embedder(self, store, advance)


class Embedder:
    """Gives texts vectors. Those that the store has are not computed again, and equal texts are once."""

    def __init__(
        self, subject: EncoderSubject, store: VectorStore | None, advance: Callable[[], None]
    ) -> None:
        self._subject = subject
        self._store = store
        self._advance = advance
        self.asked = 0
        self.tokens = 0

    def __call__(self, texts: Sequence[str], role: Role = "text") -> Vectors:
        """Returns the vectors of texts, in their order."""
        keys = [self._key(text, role) for text in texts]
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if self._store is None or key not in self._store:
                missing[key] = text
        found: dict[bytes, tuple[Any, int]] = {}
        items = list(missing.items())
        for begin in range(0, len(items), BLOCK):
            block = items[begin : begin + BLOCK]
            made = self._subject.llm.embed(
                [text for _, text in block],
                long="cut",
                query=role == "query",
                document=role == "document",
                progress=False,
            )
            self.asked += len(block)
            self.tokens += int(made.tokens.sum())
            for (key, _), vector, lost in zip(block, made.vectors, made.lost.tolist(), strict=True):
                found[key] = (vector, lost)
            if self._store is not None:
                self._store.put([key for key, _ in block], made.vectors, made.lost)
        for _ in texts:
            self._advance()
        rows = [found[key] if self._store is None else self._store.get(key) for key in keys]
        vectors = np.stack([vector for vector, _ in rows]) if rows else np.zeros((0, 0), np.float32)
        return Vectors(vectors, np.array([lost for _, lost in rows], np.int64))

    def _key(self, text: str, role: Role) -> bytes:
        asked = json.dumps([dict(self._subject.identity), dict(self._subject.settings), role, text])
        return hashlib.blake2b(asked.encode(), digest_size=16).digest()
