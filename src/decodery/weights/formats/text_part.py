"""Reads the text model of a folder that also holds models of other inputs, such as images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, Part, TensorInfo

TEXT = "text_config"
PREFIXES = ("model.language_model.", "language_model.")
HEAD = "lm_head."
TIED = "tie_word_embeddings"


def has_text_part(config: Mapping[str, Any]) -> bool:
    """True if the content of a config.json has the settings of a text model under a key of their own."""
    return isinstance(config.get(TEXT), Mapping)


class TextPart(Checkpoint):
    """Offers the text model of a folder: its settings, and its tensors by the names that it has alone.

    Tensors under none of `PREFIXES` belong to other models and are left out. The head is the embedding if the
    folder has no tensor for it. Raises CheckpointError if two tensors are one of the text model.
    """

    format: Literal["safetensors", "gguf"] = "safetensors"

    def __init__(self, folder: Checkpoint) -> None:
        self._folder = folder
        self.path, self.generation_config = folder.path, folder.generation_config
        self._stored: dict[str, str] = {}
        for name in folder.tensors:
            ours = _own_name(name)
            if ours in self._stored:
                raise CheckpointError(f"{self.path}: {name} and {self._stored[ours]} are one tensor")
            if ours is not None:
                self._stored[ours] = name
        self.tensors = {
            ours: TensorInfo(ours, info.shape, info.dtype, info.nbytes)
            for ours, info in ((ours, folder.tensors[name]) for ours, name in self._stored.items())
        }
        self.config = self._settings(folder.config)
        whole = folder.config.get("architectures")
        self.part = Part(
            of=whole[0] if isinstance(whole, list) and whole else "a model without a name",
            left_out=tuple(name for name in folder.tensors if _own_name(name) is None),
        )

    def close(self) -> None:
        self._folder.close()

    def forget(self, name: str) -> None:
        self._folder.forget(self._stored[name])

    def blocks(self, name: str, index: int | None = None) -> Tensor:
        return self._folder.blocks(self._stored[name], index)

    def read_part(self, name: str, index: int, dtype: torch.dtype) -> Tensor:
        return self._folder.read_part(self._stored[name], index, dtype)

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> Tensor:
        return self._folder.read(self._stored[info.name], dtype)

    def _settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        outer = {key: config[key] for key in (TIED, "quantization_config") if key in config}
        found = {**config[TEXT], **outer}
        if self.tensors and not any(name.startswith(HEAD) for name in self.tensors):
            found[TIED] = True
        return found


def _own_name(name: str) -> str | None:
    """Returns the name of a tensor in the text model alone; None if it belongs to another model."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest if rest.startswith(("model.", HEAD)) else f"model.{rest}"
    return name if name.startswith(HEAD) else None
