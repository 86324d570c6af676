"""Holds what encoders make of texts."""

from __future__ import annotations

from collections.abc import Iterator
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
    was made of the states of tokens.
    """

    vectors: Vector
    tokens: NDArray[np.int64]
    lost: NDArray[np.int64]
    pooling: str

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
