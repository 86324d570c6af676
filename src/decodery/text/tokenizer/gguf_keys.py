"""Reads single keys of a GGUF file's vocabulary and checks their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from decodery.errors import CheckpointError

PREFIX: Final = "tokenizer.ggml."


def array(metadata: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> list[Any]:
    """Returns an array, empty if it is missing. Raises `CheckpointError` for entries of another type."""
    values = metadata.get(f"{PREFIX}{name}", [])
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, kind) for value in values):
        raise CheckpointError(f"{PREFIX}{name} is not an array of the right type")
    return list(values)


def same_length(name: str, values: Sequence[Any], tokens: Sequence[str]) -> None:
    """Raises `CheckpointError` unless there is one value for each token."""
    if len(values) != len(tokens):
        raise CheckpointError(f"{PREFIX}{name} has {len(values)} entries for {len(tokens)} tokens")


def token_id(metadata: Mapping[str, Any], name: str, size: int, default: int | None = None) -> int | None:
    """Returns the id of a role, the default (if there is such a token) where the key is missing, or None.

    Raises `CheckpointError` when the id is outside the vocabulary.
    """
    value = metadata.get(f"{PREFIX}{name}_token_id")
    if value is None:
        return default if default is not None and default < size else None
    if not isinstance(value, int) or not 0 <= value < size:
        raise CheckpointError(
            f"{PREFIX}{name}_token_id is {value!r}, outside the vocabulary of {size} tokens"
        )
    return value


def named_ids(metadata: Mapping[str, Any], size: int) -> dict[str, int]:
    """Returns all ids of roles that the file declares, by their names: `bos`, `fim_pre`, `mask` ..."""
    end = "_token_id"
    names = [key.removeprefix(PREFIX).removesuffix(end) for key in metadata if key.startswith(PREFIX)]
    found = {name: token_id(metadata, name, size) for name in names if f"{PREFIX}{name}{end}" in metadata}
    return {name: token for name, token in found.items() if token is not None}
