"""Makes vectors of the parts of a text from states that know the whole text.

Günther et al., Late Chunking: Contextual Chunk Embeddings Using Long-Context Embedding Models (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.spans import character_spans
from decodery.encoding.texts import parts_of_text
from decodery.encoding.vectors.embed import through_layers
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.errors import ModelError, ParameterError, RequestError

Span = tuple[int, int]


@torch.inference_mode()
def embed_parts(
    parts: EncoderParts, text: str, spans: Sequence[Span], *, query: bool = False, document: bool = False
) -> NDArray[np.float32]:
    """Returns the vector of each part of a text; `EncodingCalls.embed_parts` explains the arguments."""
    settings = parts.vectors
    if settings.pooling != ("mean",):
        raise ModelError(
            f"{parts.folder} makes vectors by {'+'.join(settings.pooling) or 'no pooling'}: the parts of a"
            " text have vectors of their own only where these are the mean of states"
        )
    if not isinstance(text, str):
        raise ParameterError(f"the text must be a str, not {type(text).__name__}")
    checked = [_checked(span, len(text)) for span in spans]
    prompt = settings.prompt(query=query, document=document)
    (read,) = parts_of_text(parts, text, prompt=prompt, limit=settings.limit, lowers=settings.lowers)
    _, ends = character_spans(parts.tokenizer, prompt + text, lowers=settings.lowers)
    first = len(parts.tokenizer.single_layout.before.ids)
    (batch,) = parts.runner.run([read])
    states = batch.states.float().cpu().numpy()[first : first + len(ends)]
    width = settings.width if settings.truncate_dim is None else min(settings.truncate_dim, settings.width)
    found = np.empty((len(checked), width), np.float32)
    for index, (start, end) in enumerate(checked):
        # A token may begin with the space before its word, and so in the part before.
        places = [place for place, (_, stop) in enumerate(ends) if start < stop - len(prompt) <= end]
        if not places:
            raise RequestError(
                f"no token ends within part {index}, the characters {start} to {end}: end it behind a word",
                param=f"spans[{index}]",
            )
        vector = np.add.reduce(states[places], axis=0, dtype=np.float64) / len(places)
        whole = through_layers(settings.layers, vector.astype(np.float32), parts)[:width]
        found[index] = of_unit_length(whole) if settings.normalizes else whole
    if not np.isfinite(found).all():
        raise ModelError(f"{parts.folder}: the vectors of the parts are not finite")
    return found


def _checked(span: Any, length: int) -> Span:
    if (
        not isinstance(span, (tuple, list))
        or len(span) != 2
        or not all(type(place) is int for place in span)
        or not 0 <= span[0] < span[1] <= length
    ):
        raise ParameterError(
            f"each of the spans must be a start and an end within the {length} characters, not {span!r}"
        )
    return span[0], span[1]
