"""Classifies texts with the heads that a model was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import Classification
from decodery.encoding.tasks.head_scores import Floats, ordered_scores, sigmoid, softmax
from decodery.encoding.tasks.inputs import checked_text, listed, several, token_texts
from decodery.encoding.tasks.labels import Scoring, distinct_names, scoring
from decodery.encoding.texts import Long, pair
from decodery.errors import ParameterError


def by_head(
    parts: EncoderParts,
    inputs: Any,
    *,
    top_k: int | None = None,
    multi_label: bool | None = None,
    long: Long = "error",
) -> list[Classification]:
    """Returns the classes of each text or pair by the model's own head; `LLM.classify` explains the rest."""
    parts.head("classes")
    texts = token_texts(parts, listed(inputs), long=long)
    found = ordered_scores(parts, "classes", texts)
    return [
        of_logits(parts, rows[0], top_k=top_k, multi_label=multi_label, lost=text.lost)
        for rows, text in zip(found, texts, strict=True)
    ]


def of_logits(
    parts: EncoderParts, logits: Floats, *, top_k: int | None, multi_label: bool | None, lost: int
) -> Classification:
    """Returns the classes of one text with these logits [labels] of the head."""
    names = distinct_names(parts, len(logits))
    return classification(
        names, logits, scores_of(logits, chosen_scoring(parts, len(names), multi_label)), top_k, lost
    )


def chosen_scoring(parts: EncoderParts, count: int, multi_label: bool | None) -> Scoring:
    """Returns how logits become scores: as the caller asks, else as config.json says."""
    if multi_label is None:
        return scoring(parts.config, count)
    if not multi_label and count == 1:
        raise ParameterError("multi_label=False has no meaning with one class: its score would always be 1")
    return "sigmoid" if multi_label else "softmax"


def scores_of(logits: Floats, how: Scoring) -> Floats:
    """Returns the scores of logits [..., labels]."""
    if how == "softmax":
        return softmax(logits)
    return sigmoid(logits) if how == "sigmoid" else logits


def classification(
    names: Sequence[str], logits: Floats, scores: Floats, top_k: int | None = None, lost: int = 0
) -> Classification:
    """Returns the `top_k` best labels (None: all), the best first.

    The order is that of the logits: scores near 1 may be equal where logits are not. Equal ones are in the
    order of the labels.
    """
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise ParameterError(f"top_k must be a whole number from 1 on, not {top_k!r}")
    order = sorted(range(len(names)), key=lambda place: (-logits[place], place))[:top_k]
    best = order[0]
    return Classification(
        label=names[best],
        score=float(scores[best]),
        scores={names[place]: float(scores[place]) for place in order},
        logits={names[place]: float(logits[place]) for place in order},
        lost=lost,
    )


def choose(parts: EncoderParts, prompt: str, options: Sequence[str]) -> Classification:
    """Returns the options of a prompt with their probabilities, by the head of multiple choice.

    Raises `ModelError` without that head, `ParameterError` for fewer than two options or two alike, and
    `RequestError` for an option that is too long.
    """
    parts.head("choices")
    names = [checked_text(option, "each option") for option in several(options, "options")]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ParameterError("options must be two different texts or more")
    checked_text(prompt, "the prompt")
    texts = []
    for index, option in enumerate(names):
        with numbered(index, len(names), "option"):
            texts.append(pair(parts, prompt, option))
    logits = np.concatenate(ordered_scores(parts, "choices", texts))[:, 0]
    return classification(names, logits, softmax(logits))


def next_sentence(parts: EncoderParts, first: str, second: str) -> float:
    """Returns the probability that the second text follows the first.

    Raises `ModelError` without that head, and `RequestError` for a pair that is too long.
    """
    parts.head("next_sentence")
    text = pair(parts, checked_text(first, "the first text"), checked_text(second, "the second text"))
    (logits,) = ordered_scores(parts, "next_sentence", [text])
    # Class 0 is that of texts that follow each other.
    return float(softmax(logits[0])[0])
