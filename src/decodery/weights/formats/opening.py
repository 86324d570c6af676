"""Opens a checkpoint in either format."""

from __future__ import annotations

from pathlib import Path

from decodery.errors import CheckpointError, ModelError
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.mxfp4 import Mxfp4Checkpoint, is_mxfp4
from decodery.weights.formats.safetensors import ConfigCheckpoint, SafetensorsCheckpoint
from decodery.weights.formats.sentence_modules import transformer_folder
from decodery.weights.formats.split_gguf import open_gguf
from decodery.weights.formats.split_names import names_of_models
from decodery.weights.formats.text_part import TextPart, has_text_part
from decodery.weights.report import listed

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NO_PICKLE = (
    "no pickle is ever loaded, since it can run any code: take the safetensors files of the same model, or "
    "convert it with torch.load(file, weights_only=True) and safetensors.torch.save_file"
)


def open_checkpoint(path: Path, *, weights: bool = True) -> Checkpoint:
    """Opens a folder of config.json and safetensors files, a .gguf file, or a folder with one .gguf file.

    Of a model that was split into several .gguf files, any of them may be given. Of a folder that holds more
    than a text model, the text model is opened; of one of sentence-transformers, the transformer. Without
    `weights`, a folder with config.json alone is a checkpoint without tensors. Only headers are read. Raises
    ModelError when nothing there can be a model, and CheckpointError when the files cannot be read, are
    damaged or contradict each other.
    """
    try:
        path = transformer_folder(path)
        if not weights and not _has_weights(path) and (path / "config.json").is_file():
            return _text_of(ConfigCheckpoint(path))
        return _open(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _has_weights(path: Path) -> bool:
    return not path.is_dir() or any(entry.suffix in (".safetensors", ".gguf") for entry in path.iterdir())


def _open(path: Path) -> Checkpoint:
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    if not path.is_file():
        raise ModelError(f"{path} is neither a folder nor a file")
    return _open_gguf(path)


def _open_folder(folder: Path) -> Checkpoint:
    names = sorted(entry.name for entry in folder.iterdir())
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        opened = SafetensorsCheckpoint(folder)
        return _text_of(Mxfp4Checkpoint(opened) if is_mxfp4(opened.config) else opened)
    gguf = names_of_models(name for name in names if name.endswith(".gguf"))
    if len(gguf) == 1:
        return _open_gguf(folder / gguf[0])
    if gguf:
        raise ModelError(f"{folder} holds {len(gguf)} .gguf files; name one of them: {listed(gguf)}")
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise ModelError(f"{folder} holds its weights as a pickle ({pickles[0]}); {NO_PICKLE}")
    raise ModelError(f"{folder} holds no weights: neither .safetensors nor .gguf files")


def _text_of(folder: Checkpoint) -> Checkpoint:
    return TextPart(folder) if has_text_part(folder.config) else folder


def _open_gguf(path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        raise ModelError(f"{path}: give the folder that holds this file and its config.json")
    if path.suffix in PICKLES:
        raise ModelError(f"{path} is a pickle; {NO_PICKLE}")
    return open_gguf(path)
