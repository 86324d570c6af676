"""Runs texts through an encoder and one of its heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.text_batches import TokenText
from decodery.errors import ModelError
from decodery.models.contract import Reads

Floats = npt.NDArray[np.float64]


def head_scores(
    parts: EncoderParts,
    name: str,
    texts: Sequence[TokenText],
    places: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[int, Floats]]:
    """Yields the index of each text and the scores of a head [rows, labels], in the order they are computed.

    A head of tokens has a row for each token, or for those at the text's `places` alone. A head of texts has
    one row. Each text's scores are computed apart, so that no other text can change their bits. Raises
    `ModelError` if the model has no such head, or if scores are not finite.
    """
    head = parts.head(name)
    for batch in parts.runner.run(texts):
        for place, index in enumerate(batch.indices):
            states = _read(batch.of(place), head.reads, None if places is None else places[index])
            with torch.inference_mode():
                scores = head(states).double().cpu().numpy()
            if not np.isfinite(scores).all():
                raise ModelError(
                    f"{parts.folder}: the scores of head {name!r} are not finite: the weights are damaged, or"
                    " too large for the dtype"
                )
            yield index, scores


def ordered_scores(parts: EncoderParts, name: str, texts: Sequence[TokenText]) -> list[Floats]:
    """Returns the scores of each text [rows, labels], in the order of the texts."""
    found = dict(head_scores(parts, name, texts))
    return [found[index] for index in range(len(texts))]


def _read(states: Tensor, reads: Reads, places: Sequence[int] | None) -> Tensor:
    """Returns the states [rows, width] that a head reads of a text's states, in memory of their own."""
    if reads == "first":
        return states[:1].clone()
    if reads == "last":
        return states[-1:].clone()
    if reads == "mean":
        return states.clone().mean(0, keepdim=True)
    return states.clone() if places is None else states[list(places)]


def softmax(logits: Floats) -> Floats:
    """Returns probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = shifted / shifted.sum(-1, keepdims=True)
    return result


def sigmoid(logits: Floats) -> Floats:
    """Returns 1 / (1 + exp(-x)) of each element."""
    with np.errstate(over="ignore"):
        result: Floats = 1 / (1 + np.exp(-logits))
    return result
