"""Makes sparse vectors of texts: a weight for each token of the vocabulary that a text is about.

Formal et al., SPLADE v2: Sparse Lexical and Expansion Model for Information Retrieval (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long, parts_of_text
from decodery.encoding.vectors.sentence_folder import largest_number_of_weights, read_prompts
from decodery.encoding.vectors.vector_settings import DOCUMENT, QUERY
from decodery.errors import DecoderyError, ModelError, ParameterError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.token_ids import listed_prompts
from decodery.weights.formats.safetensors import read_json_file
from decodery.weights.formats.sentence_modules import modules_of

Strategy = Literal["max", "sum"]


@dataclass(frozen=True, eq=False)
class SparseEmbedding:
    """Holds the weights of a text's tokens: `ids` ascending, and a weight above 0 for each in float32.

    `tokens` is the number of tokens that were read, and `lost` of those that were cut off.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    tokens: int
    lost: int = 0

    def dot(self, other: SparseEmbedding) -> float:
        """Returns the sum of the products of the weights that both have, in float64."""
        _, ours, theirs = np.intersect1d(self.ids, other.ids, assume_unique=True, return_indices=True)
        return float(self.weights[ours].astype(np.float64) @ other.weights[theirs].astype(np.float64))


@dataclass(frozen=True)
class SparseSettings:
    """Holds how the scores of tokens become weights: over a text's places the largest one, or their sum.

    A weight is log(1 + relu(score)), with `twice` the logarithm of one more than that.
    """

    strategy: Strategy = "max"
    twice: bool = False


def embed_sparse(
    parts: EncoderParts,
    texts: Any,
    *,
    query: bool = False,
    document: bool = False,
    max_active_dims: int | None = None,
    long: Long = "error",
) -> list[SparseEmbedding]:
    """Returns the weights of each text; `EncodingCalls.embed_sparse` explains the arguments."""
    head = parts.head("masked_lm")
    settings = sparse_settings(parts.folder)
    if query and document:
        raise ParameterError("give one of query and document: each chooses the text before the others")
    if long not in ("error", "cut"):
        raise ParameterError(f"long must be error or cut, not {long!r}")
    if max_active_dims is None:
        max_active_dims = largest_number_of_weights(parts.folder)
    elif type(max_active_dims) is not int or max_active_dims < 1:
        raise ParameterError(f"max_active_dims must be a whole number from 1 on, not {max_active_dims!r}")
    prompts, default = read_prompts(parts.folder)
    names = QUERY if query else DOCUMENT if document else () if default is None else (default,)
    prompt = next((prompts[name] for name in names if name in prompts), "")
    listed = listed_prompts(texts)
    read = [_read(parts, listed, index, prompt, long) for index in range(len(listed))]
    found: dict[int, SparseEmbedding] = {}
    for batch in parts.runner.run(read):
        for place, index in enumerate(batch.indices):
            # Each text apart, so that the others cannot change its bits.
            with torch.inference_mode():
                weights = _weights(head(batch.of(place).clone()), settings).cpu().numpy()
            if not np.isfinite(weights).all():
                raise ModelError(
                    f"{parts.folder}: text {index} has weights that are not finite: the model's weights are"
                    " damaged, or too large for the dtype"
                )
            ids = _largest(weights, max_active_dims)
            found[index] = SparseEmbedding(ids, weights[ids], len(read[index].ids), read[index].lost)
    return [found[index] for index in range(len(listed))]


def sparse_settings(folder: Path) -> SparseSettings:
    """Returns how a folder's SpladePooling makes weights, those of SPLADE without one.

    Raises `ModelError` for a folder whose vectors are made otherwise.
    """
    for kind, place in modules_of(folder)[1:]:
        if kind == "Dropout":
            continue
        if kind != "SpladePooling":
            raise ModelError(
                f"{folder / 'modules.json'} lists a {kind}: sparse vectors need a SpladePooling, or a folder"
                " without modules.json whose head of masked tokens was trained for them"
            )
        file = place / "config.json"
        keys = CheckpointKeys(read_json_file(file), str(file))
        strategy = keys.text("pooling_strategy", "max")
        activation = keys.text("activation_function", "relu")
        if strategy not in ("max", "sum"):
            raise keys.error("pooling_strategy", "max or sum")
        if activation not in ("relu", "log1p_relu"):
            raise keys.error("activation_function", "relu or log1p_relu")
        chosen: Strategy = "max" if strategy == "max" else "sum"
        return SparseSettings(chosen, activation == "log1p_relu")
    return SparseSettings()


def _read(parts: EncoderParts, texts: list[Any], index: int, prompt: str, long: Long) -> TokenText:
    rules = parts.rules
    try:
        (found,) = parts_of_text(
            parts, texts[index], prompt=prompt, limit=rules.limit, long=long, lowers=rules.lowers
        )
    except DecoderyError as error:
        if len(texts) == 1:
            raise
        raise type(error)(f"text {index}: {error}", param=f"texts[{index}]") from None
    return found


def _largest(weights: NDArray[np.float32], most: int | None) -> NDArray[np.int64]:
    """Returns the ids of the `most` largest weights above 0, ascending; of equal ones the first."""
    ids = np.flatnonzero(weights)
    if most is None:
        return ids
    order = np.argsort(-weights[ids], kind="stable")[:most]
    return np.sort(ids[order])


def _weights(scores: Tensor, settings: SparseSettings) -> Tensor:
    """Returns the weights [vocabulary] of a text's scores [tokens, vocabulary]."""
    weights = scores.relu().log1p()
    if settings.twice:
        weights = weights.log1p()
    return weights.amax(0) if settings.strategy == "max" else weights.sum(0)
