"""Reads modules.json, in which sentence-transformers lists the parts of a model of texts' vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from decodery.errors import CheckpointError

MODULES = "modules.json"
TRANSFORMERS = ("Transformer", "MLMTransformer")
"""The kinds of the first module: the second one is that of models of sparse vectors."""


class SentenceModule(NamedTuple):
    """Holds an entry of modules.json: its kind, such as "Pooling", and its folder."""

    kind: str
    folder: Path


def modules_of(folder: Path) -> list[SentenceModule]:
    """Returns the modules that modules.json lists, the transformer first; none if there is no such file.

    Raises `CheckpointError` for a file that is damaged or lists no transformer first.
    """
    file = folder / MODULES
    if not file.is_file():
        return []
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(f"{file} must hold a list of modules")
    found = [_module(file, entry) for entry in listed]
    kinds = ["Transformer" if module.kind in TRANSFORMERS else module.kind for module in found]
    if kinds[0] != "Transformer" or "Transformer" in kinds[1:]:
        raise CheckpointError(
            f"{file} lists {', '.join(kinds)}: it must list one Transformer, as the first module"
        )
    return found


def modules_around(transformer: Path) -> list[SentenceModule]:
    """Returns the modules of the folder whose transformer lies here; none if there is no modules.json.

    That folder is this one, or one that holds it. Raises `CheckpointError` for a damaged file of this one.
    """
    for folder in (transformer, *transformer.parents[:2]):
        if (folder / MODULES).is_file():
            modules = modules_of(folder)
            return modules if modules[0].folder.resolve() == transformer.resolve() else []
    return []


def transformer_folder(folder: Path) -> Path:
    """Returns the folder of the model itself, which older folders of sentence-transformers have within."""
    if (folder / "config.json").exists():
        return folder
    modules = modules_of(folder)
    return modules[0].folder if modules else folder


def _module(file: Path, entry: object) -> SentenceModule:
    kind, place = (entry.get("type"), entry.get("path")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(kind, str) or not isinstance(place, str):
        raise CheckpointError(f"{file}: each module must have a type and a path, which are strings")
    parts = PurePosixPath(place).parts
    if "\\" in place or PurePosixPath(place).is_absolute() or ".." in parts:
        raise CheckpointError(f"{file}: the path {place!r} must be a folder within the model's folder")
    return SentenceModule(kind.rpartition(".")[2], file.parent.joinpath(*parts))
