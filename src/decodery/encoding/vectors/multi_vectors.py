"""Gives each token of a text a vector, and compares texts by these (late interaction).

Khattab and Zaharia, ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
BERT (2020); Santhanam et al., ColBERTv2 (2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long, parts_of_text
from decodery.encoding.vectors.multi_vector_files import Closeness, Total
from decodery.encoding.vectors.multi_vector_settings import MultiVectorSettings
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.token_ids import listed_prompts


@dataclass(frozen=True, eq=False)
class MultiVector:
    """Holds the vectors of a text's tokens that count: `ids` [n], `vectors` [n, width] in float32.

    Of a document, those that the folder leaves out are missing, such as punctuation. `tokens` is the number
    of tokens that were read, and `lost` of those that were cut off. `closeness` says how alike two vectors
    are, and `total` what a score is of a query's tokens.
    """

    ids: tuple[int, ...]
    vectors: NDArray[np.float32]
    tokens: int
    lost: int = 0
    closeness: Closeness = "dot"
    total: Total = "sum"

    def max_sim(self, document: MultiVector) -> float:
        """Returns how well a document answers this query: the sum of `best_matches`, or their mean."""
        best = self.best_matches(document)[1]
        return float(best.sum() if self.total == "sum" else best.mean())

    def best_matches(self, document: MultiVector) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns the place of the document's vector that is most alike each of this query's, and how alike.

        Products are computed in float64, as are squared distances, which are below 0.
        """
        one, two = self.vectors.astype(np.float64), document.vectors.astype(np.float64)
        if self.closeness == "dot":
            alike = one @ two.T
        else:
            alike = np.stack([-((two - row) ** 2).sum(1) for row in one])
        places = alike.argmax(1)
        return places, alike[np.arange(len(one)), places]


def embed_multi(
    parts: EncoderParts, texts: Any, *, query: bool = False, long: Long = "error"
) -> list[MultiVector]:
    """Returns the vectors of each text's tokens; `EncodingCalls.embed_multi` explains the arguments."""
    if not isinstance(query, bool):
        raise ParameterError(f"query must be True or False, not {query!r}")
    if long not in ("error", "cut"):
        raise ParameterError(f"long must be error or cut, not {long!r}")
    listed = listed_prompts(texts)
    read = []
    for index, text in enumerate(listed):
        with numbered(index, len(listed)):
            read.append(read_role(parts, text, query=query, long=long))
    found = dict(multi_vectors(parts, read, query=query))
    return [found[index] for index in range(len(listed))]


def settings_of(parts: EncoderParts) -> MultiVectorSettings:
    """Returns how the model gives tokens vectors; raises `ModelError` for one that was not trained for it."""
    if parts.multi_vectors is None:
        raise ModelError(
            f"{parts.folder} ({parts.architecture}) was not trained to give each token a vector of its own:"
            " open a ColBERT model, or use embed, or embed_tokens for the states of tokens",
            param="model",
        )
    return parts.multi_vectors


def read_role(parts: EncoderParts, text: Any, *, query: bool, long: Long) -> TokenText:
    """Returns what the model reads of a query or a document.

    A query is filled up as the folder says. Raises `RequestError` for a text that is too long or has no token
    that counts, and `ParameterError` for anything but a text.
    """
    settings = settings_of(parts)
    if not isinstance(text, str):
        raise ParameterError(
            f"a text must be a str, not {type(text).__name__}: the folder's tokens are put around it"
        )
    role = settings.query if query else settings.document
    (found,) = parts_of_text(
        parts,
        text,
        prompt=role.prompt,
        limit=role.limit,
        long=long,
        lowers=parts.rules.lowers,
        marker=role.marker,
    )
    if all(token in role.skipped for token in found.ids):
        raise RequestError("the text has no token that counts: the folder leaves all of them out")
    return _filled(parts, settings, found) if query else found


def _filled(parts: EncoderParts, settings: MultiVectorSettings, text: TokenText) -> TokenText:
    """Returns a query with the tokens that fill it up."""
    expansion, count = settings.expansion, len(text.ids)
    if expansion is None or count >= expansion.length:
        return text
    added = expansion.length - count
    if not expansion.attends:
        for layer in parts.model.attention_layers:
            if layer.window is not None and added >= layer.window:
                raise RequestError(
                    f"the query has {count} tokens and is filled up to {expansion.length}, the last of which"
                    f" would see none of the query's: a layer of this model sees {layer.window - 1} tokens"
                    f" before each, so give a query of {expansion.length - layer.window + 1} tokens or more"
                )
    return replace(
        text,
        ids=(*text.ids, *[expansion.token] * added),
        segments=(*text.segments, *[0] * added),
        seen=None if expansion.attends else count,
    )


def multi_vectors(
    parts: EncoderParts, texts: Sequence[TokenText], *, query: bool
) -> Iterator[tuple[int, MultiVector]]:
    """Yields the index of each text and the vectors of its tokens, in the order they are computed.

    Raises `ModelError` for vectors that are not finite.
    """
    settings = settings_of(parts)
    role = settings.query if query else settings.document
    for batch in parts.runner.run(texts):
        for place, index in enumerate(batch.indices):
            # Each text apart, so that the others cannot change its bits.
            with torch.inference_mode():
                vectors = settings.vectors(batch.of(place).float().clone()).cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ModelError(
                    f"{parts.folder}: text {index} has vectors that are not finite: the weights are damaged,"
                    " or too large for the dtype"
                )
            text = texts[index]
            kept = [at for at, token in enumerate(text.ids) if token not in role.skipped]
            found = MultiVector(
                ids=tuple(text.ids[at] for at in kept),
                vectors=vectors[kept],
                tokens=len(text.ids),
                lost=text.lost,
                closeness=settings.closeness,
                total=settings.total,
            )
            yield index, found
