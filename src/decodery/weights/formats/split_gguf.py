"""Opens GGUF files, also those of a model that was split into several."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.gguf import GgufCheckpoint
from decodery.weights.formats.split_names import paths_of_parts
from decodery.weights.report import listed

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


def open_gguf(path: Path) -> Checkpoint:
    """Opens a GGUF file; if it is a part of a split model, all parts as one checkpoint.

    Raises CheckpointError for a damaged file, and for parts that are missing or do not belong together.
    """
    opened = GgufCheckpoint(path)
    if opened.config.get(_COUNT, 1) in (0, 1):
        return opened
    with ExitStack() as files:
        files.callback(opened.close)
        parts = [opened if part == path else GgufCheckpoint(part) for part in _existing_parts(opened)]
        for part in parts:
            files.callback(part.close)
        split = SplitGguf(parts)
        files.pop_all()
    return split


def _existing_parts(opened: GgufCheckpoint) -> list[Path]:
    number, count = opened.config.get(_NUMBER), opened.config[_COUNT]
    paths = paths_of_parts(opened.path)
    if len(paths) != count or number is None or paths.index(opened.path) != number:
        raise CheckpointError(
            f"{opened.path} is a part of a split model ({_NUMBER} is {number!r} and {_COUNT} {count!r}) "
            "under another name: rename the parts to NAME-00001-of-00002.gguf and so on"
        )
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise CheckpointError(
            f"{opened.path} is one of {count} parts of a model, of which {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing from its folder"
        )
    return paths


class SplitGguf(Checkpoint):
    """Reads the parts of a split GGUF model as one checkpoint, with the path and metadata of the first one.

    Raises CheckpointError if the parts do not belong together, or lack tensors or have one twice.
    """

    format: Literal["safetensors", "gguf"] = "gguf"

    def __init__(self, parts: list[GgufCheckpoint]) -> None:
        self._parts = parts
        self.path, self.config = parts[0].path, parts[0].config
        self.generation_config: Mapping[str, Any] = {}
        self._holders: dict[str, GgufCheckpoint] = {}
        for number, part in enumerate(parts):
            self._add(part, number)
        self.tensors = {name: part.tensors[name] for name, part in self._holders.items()}
        expected = self.config.get(_TENSORS, len(self.tensors))
        if expected != len(self.tensors):
            raise CheckpointError(
                f"{self.path}: {_TENSORS} is {expected}, but the parts hold {len(self.tensors)} tensors"
            )

    def _add(self, part: GgufCheckpoint, number: int) -> None:
        found = tuple(part.config.get(key) for key in (_NUMBER, _COUNT))
        if found != (number, len(self._parts)):
            raise CheckpointError(
                f"{part.path}: {_NUMBER} is {found[0]!r} and {_COUNT} {found[1]!r}; by its name they must be "
                f"{number} and {len(self._parts)}"
            )
        for name in part.tensors:
            if name in self._holders:
                raise CheckpointError(f"{part.path}: {self._holders[name].path.name} too has a tensor {name}")
            self._holders[name] = part

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        return self._holders[info.name].read(info.name, dtype)

    def read_part(self, name: str, index: int, dtype: torch.dtype) -> torch.Tensor:
        return self._holders[name].read_part(name, index, dtype)

    def blocks(self, name: str, index: int | None = None) -> torch.Tensor:
        return self._holders[name].blocks(name, index)

    def forget(self, name: str) -> None:
        self._holders[name].forget(name)
