"""Makes vectors of tokens without a model, for metrics of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

START, END = 1, 2


@dataclass(frozen=True)
class Tokens:
    """Holds the tokens of a text between two special tokens, as an encoder reads it."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    vectors: Any = field(repr=False)


def letters(texts: Sequence[str], width: int = 8) -> list[Tokens]:
    """Returns tokens of one letter each; equal letters have equal vectors, drawn by the letter, most of
    their similarities above 0."""
    return [_read(text, width) for text in texts]


def _read(text: str, width: int) -> Tokens:
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    ids = [START, *(ord(text[place]) for place in places), END]
    spans = [(0, 0), *((place, place + 1) for place in places), (0, 0)]
    vectors = [np.random.default_rng(number).normal(1, 1, width) for number in ids]
    return Tokens(ids, spans, np.array(vectors))
