"""Fetches checkpoints from the Hugging Face hub, through its own client and its own cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from decodery.errors import CheckpointError, ModelError
from decodery.weights.formats.sentence_modules import transformer_folder
from decodery.weights.formats.split_names import names_of_models, names_of_parts
from decodery.weights.report import Progress, listed

# Only the files that a model needs: no pickles, and no second copy of the weights.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "artifact.metadata"]
# Chat templates may lie in a folder. The folders of sentence-transformers' modules begin with a number.
UNWANTED = [*(f"[!0-9]*/{pattern}" for pattern in WANTED if pattern != "*.jinja"), "consolidated*"]
# Most headers, which hold a vocabulary, are smaller.
FIRST_HEADER_BYTES = 8 << 20


def fetch_snapshot(
    repository: str, revision: str | None, token: str | None, progress: Progress | None
) -> Path:
    """Returns the folder of a hub model's config, tokenizer and safetensors files; fetches those not in the
    cache.

    Raises ModelError when they cannot be fetched, or when the repository holds no safetensors.
    """
    import huggingface_hub as hub

    if progress is not None:
        progress(f"fetching {repository} from the hub", 0, 0)
    try:
        fetched = hub.snapshot_download(
            repository, revision=revision, token=token, allow_patterns=WANTED, ignore_patterns=UNWANTED
        )
    except Exception as error:
        raise _explained(repository, revision, error) from error
    folder = Path(fetched)
    if not any(transformer_folder(folder).glob("*.safetensors")):
        raise ModelError(
            f"{repository} holds no safetensors files; if it has GGUF files, pick one, "
            f"as in {repository}:Q4_K_M"
        )
    return folder


def fetch_config(repository: str, revision: str | None, token: str | None) -> Path:
    """Returns the folder of a hub model's config and tokenizer files, with the weights only if they are in
    the cache.

    Raises ModelError when they cannot be fetched.
    """
    import huggingface_hub as hub

    wanted = [pattern for pattern in WANTED if pattern != "*.safetensors"]
    try:
        return Path(
            hub.snapshot_download(
                repository, revision=revision, token=token, allow_patterns=wanted, ignore_patterns=UNWANTED
            )
        )
    except Exception as error:
        raise _explained(repository, revision, error) from error


def fetch_gguf_header(
    repository: str, choice: str, revision: str | None, token: str | None, folder: Path
) -> Path:
    """Returns a file in `folder` of the size and with the header of a hub repository's GGUF file.

    Its tensors are zeros that take no space on the disk. Beside the first part of a split model are the
    others. `choice` and errors are those of `fetch_gguf`.
    """
    import huggingface_hub as hub

    try:
        names = pick_gguf(repository, choice, _list_ggufs(repository, revision, token))
        cached = [hub.try_to_load_from_cache(repository, name, revision=revision) for name in names]
        if isinstance(cached[0], str) and all(isinstance(path, str) for path in cached):
            return Path(cached[0])
        for name in names:
            remote = f"{repository}@{revision or 'main'}/{name}"
            with hub.HfFileSystem(token=token).open(remote, "rb") as source:
                _copy_header(source, source.size, folder / Path(name).name)
        return folder / Path(names[0]).name
    except ModelError:
        raise
    except Exception as error:
        raise _explained(repository, revision, error) from error


def _copy_header(source: IO[bytes], size: int, target: Path) -> None:
    """Writes a file that has the beginning of a GGUF file, as much as its header needs, and its size."""
    from decodery.weights.formats.gguf import GgufCheckpoint

    length = min(size, FIRST_HEADER_BYTES)
    while True:
        source.seek(0)
        target.write_bytes(source.read(length))
        os.truncate(target, size)
        try:
            GgufCheckpoint(target).close()
            return
        except CheckpointError:
            if length == size:
                raise
        length = min(size, 4 * length)


def fetch_gguf(
    repository: str, choice: str, revision: str | None, token: str | None, progress: Progress | None
) -> Path:
    """Returns one GGUF file of a hub repository; `choice` is its name, or a part of the name such as
    "Q4_K_M".

    Of a split model all parts are fetched, and the first is returned. Raises ModelError when it cannot be
    fetched, or when the choice fits no model or several.
    """
    import huggingface_hub as hub

    if progress is not None:
        progress(f"fetching {repository}:{choice} from the hub", 0, 0)
    try:
        names = pick_gguf(repository, choice, _list_ggufs(repository, revision, token))
        files = [hub.hf_hub_download(repository, name, revision=revision, token=token) for name in names]
        return Path(files[0])
    except ModelError:
        raise
    except Exception as error:
        raise _explained(repository, revision, error) from error


def pick_gguf(repository: str, choice: str, names: Sequence[str]) -> list[str]:
    """Returns the one of `names` that is `choice`, or that has it as a complete part of its name, in any
    case; of a split model, the names of all parts.

    "Q4_K" is not a complete part of "m-Q4_K_M.gguf". Raises ModelError, with the names, when none or several
    models fit, or when parts of the one that fits are not among the names.
    """
    picked = choice if choice in names else _fitting(repository, choice, names_of_models(names))
    parts = names_of_parts(picked)
    missing = [part for part in parts if part not in names]
    if missing:
        raise ModelError(f"{repository} lacks parts of a split model: {listed(missing)}")
    return parts


def _fitting(repository: str, choice: str, names: Sequence[str]) -> str:
    part = re.compile(rf"(^|[-._/]){re.escape(choice)}([-./]|$)", re.IGNORECASE)
    fitting = [] if choice.endswith(".gguf") else [name for name in names if part.search(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ModelError(f"{repository}: several GGUF files fit {choice}: {listed(fitting)}")
    raise ModelError(
        f"{repository} has no GGUF file {choice}; it has {listed(names) if names else 'none at all'}"
    )


def _list_ggufs(repository: str, revision: str | None, token: str | None) -> list[str]:
    import huggingface_hub as hub

    try:
        names = hub.HfApi().list_repo_files(repository, revision=revision, token=token)
    except Exception:
        names = _cached_files(repository, revision)
        if not names:
            raise
    return [name for name in names if name.endswith(".gguf")]


def _cached_files(repository: str, revision: str | None) -> list[str]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / (commit or "main")
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf"))


def _explained(repository: str, revision: str | None, error: Exception) -> ModelError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{repository} is gated: accept its terms on the hub and give a token that may read it"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(f"the hub has no model {repository}, or it is private and needs a token")
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{repository} has no revision {revision}")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return ModelError(f"{repository} is not wholly in the hub's cache, and the hub cannot be reached")
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return ModelError(f"{repository} cannot be fetched from the hub: {reason}")
