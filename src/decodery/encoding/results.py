"""Holds what encoders make of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ParameterError

Vector = NDArray[Any]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Holds the vectors of texts, in the order in which they were given; it is also an array of them.

    `vectors` is [texts, width] in float32, int8 or uint8. `tokens` [texts] counts the tokens that were read,
    with special tokens and prompts, and `lost` [texts] those that were cut off. `pooling` says how a vector
    was made of the states of tokens. `precision` is that of the vectors, and `dimensions` their number of
    dimensions: the width, but for bits, of which a number holds eight.
    """

    vectors: Vector
    tokens: NDArray[np.int64]
    lost: NDArray[np.int64]
    pooling: str
    precision: Precision
    dimensions: int

    @property
    def ranges(self) -> NDArray[np.float32]:
        """Returns the least and the largest number of each dimension [2, width], for the precision int8.

        Raises `ParameterError` for fewer than two vectors and for those that are not in float32.
        """
        if self.vectors.dtype != np.float32 or len(self.vectors) < 2:
            raise ParameterError("ranges are those of two vectors or more in float32; take many texts")
        return np.stack([self.vectors.min(0), self.vectors.max(0)]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Vector]:
        return iter(self.vectors)

    def __getitem__(self, index: Any) -> Vector:
        """Returns the vector of a text, or those of several texts."""
        found: Vector = self.vectors[index]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Vector:
        """Returns the vectors for numpy's functions."""
        if copy is False and dtype is not None and np.dtype(dtype) != self.vectors.dtype:
            raise ValueError("vectors of another type are a copy")
        found: Vector = self.vectors if dtype is None else self.vectors.astype(dtype, copy=False)
        return found.copy() if copy else found


@dataclass(frozen=True, eq=False)
class WordEmbedding:
    """Holds the vector [width] of an occurrence of a word: characters `start` to `end` of the text."""

    text: str
    start: int
    end: int
    vector: Vector


@dataclass(frozen=True, eq=False)
class TokenEmbeddings:
    """Holds the states of a text's tokens: `vectors` [tokens, width] in float32.

    `ids` are all tokens that were read, with the special ones. `spans` are the characters of the text that
    each stands for, (0, 0) for special tokens and where token ids were given. `lost` tokens were cut off.
    `words` are the occurrences of the words that were asked for, in their order in the text.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    vectors: Vector
    lost: int = 0
    words: tuple[WordEmbedding, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Classification:
    """Holds the classes of a text: the best `label`, its `score`, and those of all or of the best labels.

    `scores` and `logits` are by label, the best first. `lost` is the number of tokens that were cut off.
    `accuracy` is that of labels learned from examples: the share that was right of examples not seen.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    logits: Mapping[str, float]
    lost: int = 0
    accuracy: float | None = None


@dataclass(frozen=True)
class MaskFill:
    """Holds a token that may stand in place of a mask, with its probability.

    `token` is its text, and `text` the whole text with the token in it.
    """

    token_id: int
    token: str
    score: float
    text: str


@dataclass(frozen=True)
class TaggedSpan:
    """Holds a labelled span: the characters `start` to `end` of the text, which are `text`.

    `score` is the mean of its words' probabilities. `words` is the slice of the caller's words, None for a
    text. The text of given words is these words with spaces between them.
    """

    label: str
    score: float
    start: int
    end: int
    text: str
    words: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """Holds an answer: the characters `start` to `end` of the context, which are `text`.

    `score` is its probability. An empty text means that the context does not answer the question.
    """

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Ranked:
    """Holds a document, its `index` among those given, and how well it answers the query.

    Documents are ordered by the `logit`. The `score` is the model's function of it: in 0..1 if that is the
    sigmoid. `lost` is the number of the document's tokens that were cut off.
    """

    index: int
    score: float
    logit: float
    document: str
    lost: int = 0
