"""Opens the tokenizer of a checkpoint."""

from __future__ import annotations

from decodery.errors import CheckpointError
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.checkpoint import Checkpoint


def open_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Returns a checkpoint's tokenizer, and adds what it warns of to the checkpoint's warnings.

    Raises `CheckpointError`, naming the file, when it is damaged.
    """
    if checkpoint.format != "gguf":
        return Tokenizer.from_folder(checkpoint.path)
    try:
        tokenizer = Tokenizer.from_gguf(checkpoint.config)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    for message in tokenizer.warnings:
        checkpoint.warn(message)
    return tokenizer
