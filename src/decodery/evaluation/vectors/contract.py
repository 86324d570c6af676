"""Defines what a task of vectors reads, what it asks an encoder, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from decodery.evaluation.contract import Document, Sample
from decodery.metrics.score import Score

Floats = NDArray[np.float32]
Role = Literal["text", "query", "document"]


@dataclass(frozen=True, slots=True)
class VectorData:
    """Holds the documents that are measured, and by name those that are needed beside them.

    What is beside them, such as the "corpus" that is searched, can be iterated several times and need not be
    in memory. `source` describes the files, for the report.
    """

    documents: tuple[Document, ...]
    beside: Mapping[str, Iterable[Document]] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Holds the vectors [texts, width] of texts, and the number of tokens [texts] that were cut off."""

    vectors: Floats
    lost: NDArray[np.int64]


class Embed(Protocol):
    """Returns the vectors of texts, in their order. A role chooses the encoder's prompt for it."""

    def __call__(self, texts: Sequence[str], role: Role = "text") -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Holds a sample for each document, and the results; the first one is the main one."""

    samples: Sequence[Sample]
    results: Mapping[str, Score]


@runtime_checkable
class VectorTask(Protocol):
    """Reads data, asks an encoder for vectors, and judges them. Holds no state."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Returns a number that changes when the same vectors may get another result."""

    def read(self, data: Path | None) -> VectorData:
        """Reads the published layout. Raises `ParameterError` with the file and line."""

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Judges the vectors of the documents. Equal arguments give equal results."""
