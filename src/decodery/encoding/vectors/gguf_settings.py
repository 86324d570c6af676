"""Reads how a GGUF file makes vectors of texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decodery.encoding.vectors.vector_settings import VectorSettings
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import EncoderModel

ARCHITECTURE = "general.architecture"
POOLINGS: Mapping[int, tuple[str, ...]] = {0: (), 1: ("mean",), 2: ("cls",), 3: ("lasttoken",), 4: ()}
"""The ways to pool by their numbers in a file: 0 gives states, and 4 scores of a reranker."""


def gguf_vector_settings(file: Path, metadata: Mapping[str, Any], model: EncoderModel) -> VectorSettings:
    """Returns how the vectors of a file's model are made; without a pooling where the file names none.

    Raises `ModelError` for a pooling with another number.
    """
    keys = CheckpointKeys(metadata, str(file))
    key = f"{keys.text(ARCHITECTURE)}.pooling_type"
    number = keys.count(key, 0, least=0)
    if number not in POOLINGS:
        raise keys.error(key, "0 (none), 1 (mean), 2 (CLS), 3 (last) or 4 (rank)")
    return VectorSettings(width=model.width, limit=model.context_length, pooling=POOLINGS[number])
