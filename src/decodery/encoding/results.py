"""Holds what encoders make of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    """Holds the classes of a text: the best `label`, its `score`, and those of all or of the best labels.

    `scores` and `logits` are by label, the best first. `lost` is the number of tokens that were cut off.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    logits: Mapping[str, float]
    lost: int = 0


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
