"""Lists the models in our cache, and gives the folders of that cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decodery.errors import ModelError
from decodery.weights.formats.split_names import names_of_models, names_of_parts


@dataclass(frozen=True)
class CachedModel:
    """Describes a model on this machine; `bytes` is the size of its weights.

    `resolve` takes its `name` or `path`. The format "packed" means weights of another model, kept by
    `PackedCache`: such an entry is no model of its own.
    """

    name: str
    path: Path
    bytes: int
    format: Literal["safetensors", "gguf", "packed"]


def cache_folder() -> Path:
    """Returns the folder of our own cache: DECODERY_CACHE, else in the platform's user cache; it need not
    exist yet.

    Raises ModelError if the user has no home folder to hold it.
    """
    try:
        return _cache_folder()
    except RuntimeError as error:
        raise ModelError(
            "there is no home folder to keep models in: set DECODERY_CACHE to the folder that may hold them"
        ) from error


def _cache_folder() -> Path:
    if chosen := os.environ.get("DECODERY_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "decodery"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "decodery"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decodery"


def models_folder() -> Path:
    """Returns the part of our cache with one folder for each fetched model."""
    return cache_folder() / "models"


def data_folder() -> Path:
    """Returns the part of our cache with one folder for each fetched data set."""
    return cache_folder() / "data"


def packed_folder() -> Path:
    """Returns the part of our cache with files of packed weights; each can be deleted at any time."""
    return cache_folder() / "packed"


def cached_models() -> list[CachedModel]:
    """Returns the models in our cache, the snapshots with weights in the hub's, and packed weights, by name.

    Nothing is opened, so a damaged file is listed too. Anything else in these folders is ignored.
    """
    found = [*_own_models(), *_hub_models(), *_packed_files()]
    return sorted(found, key=lambda model: (model.name, str(model.path)))


def _own_models() -> Iterator[CachedModel]:
    for folder in _visible_folders(models_folder()):
        yield from _models_in(folder, folder.name)


def _hub_models() -> Iterator[CachedModel]:
    from huggingface_hub import constants

    for repository in _visible_folders(Path(constants.HF_HUB_CACHE)):
        kind, _, name = repository.name.partition("--")
        if kind == "models" and "--" in name:
            for snapshot in _visible_folders(repository / "snapshots"):
                yield from _models_in(snapshot, name.replace("--", "/", 1))


def _packed_files() -> Iterator[CachedModel]:
    for name, size in _file_sizes(packed_folder()).items():
        if name.endswith(".packed"):
            yield CachedModel(name, packed_folder() / name, size, "packed")


def _models_in(folder: Path, name: str) -> Iterator[CachedModel]:
    """Yields the folder itself if it holds safetensors, and each .gguf model in it."""
    sizes = _file_sizes(folder)
    shards = [size for file, size in sizes.items() if file.endswith(".safetensors")]
    if shards and "config.json" in sizes:
        yield CachedModel(name, folder, sum(shards), "safetensors")
    ggufs = names_of_models(file for file in sizes if file.endswith(".gguf"))
    for file in ggufs:
        alone = len(ggufs) == 1 and not shards
        size = sum(sizes.get(part, 0) for part in names_of_parts(file))
        yield CachedModel(name if alone else f"{name}:{file}", folder / file, size, "gguf")


def _visible_folders(folder: Path) -> list[Path]:
    try:
        return [entry for entry in sorted(folder.iterdir()) if entry.name[:1] != "." and entry.is_dir()]
    except OSError:
        return []


def _file_sizes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    try:
        for entry in sorted(folder.iterdir()):
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    except OSError:
        return sizes
    return sizes
