"""Reads single keys of a GGUF file's vocabulary and checks their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from decodery.errors import CheckpointError

PREFIX: Final = "tokenizer.ggml."
_ID: Final = "_token_id"
_DEFAULT_IDS: Final[Mapping[str, Mapping[str, int]]] = {
    "llama": {"bos": 1, "eos": 2},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
}


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


def with_known_ids(metadata: Mapping[str, Any], size: int) -> tuple[dict[str, Any], list[str]]:
    """Returns the key-values with ids of roles that are in the vocabulary, and warnings about the others.

    An id beyond the vocabulary counts as missing: some converters write -1 for it. Where an id is missing, a
    SentencePiece vocabulary has the one that its library gives by default.
    """
    ids = {key: value for key, value in metadata.items() if key.startswith(PREFIX) and key.endswith(_ID)}
    beyond = {key: value for key, value in ids.items() if isinstance(value, int) and not 0 <= value < size}
    known = {key: value for key, value in metadata.items() if key not in beyond}
    for role, token in _DEFAULT_IDS.get(str(metadata.get(f"{PREFIX}model")), {}).items():
        if token < size and known.get(f"{PREFIX}{role}{_ID}") is None:
            known[f"{PREFIX}{role}{_ID}"] = token
    warnings = [
        f"{key} is {value}, beyond the vocabulary of {size} tokens: "
        + (f"{known[key]} is used" if key in known else "there is no such token")
        for key, value in beyond.items()
    ]
    return known, warnings


def token_id(metadata: Mapping[str, Any], name: str, size: int, default: int | None = None) -> int | None:
    """Returns the id of a role, the default (if there is such a token) where the key is missing, or None.

    Raises `CheckpointError` when the id is not a token of the vocabulary.
    """
    value = metadata.get(f"{PREFIX}{name}{_ID}")
    if value is None:
        return default if default is not None and default < size else None
    if not isinstance(value, int) or not 0 <= value < size:
        raise CheckpointError(f"{PREFIX}{name}{_ID} is {value!r}, outside the vocabulary of {size} tokens")
    return value


def named_ids(metadata: Mapping[str, Any], size: int) -> dict[str, int]:
    """Returns all ids of roles that the file declares, by their names: `bos`, `fim_pre`, `mask` ..."""
    names = [key.removeprefix(PREFIX).removesuffix(_ID) for key in metadata if key.startswith(PREFIX)]
    found = {name: token_id(metadata, name, size) for name in names if f"{PREFIX}{name}{_ID}" in metadata}
    return {name: token for name, token in found.items() if token is not None}
