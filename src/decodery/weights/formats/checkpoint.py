"""What a checkpoint is, whatever format its files have: named tensors and the settings that describe them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from decodery.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor, known without reading it.

    `shape` is in torch order (rows first). `dtype` is torch's name for a plain element type ("float32",
    "bfloat16", "int64", ...) and GGML's for a block-quantised one ("Q4_1"). `nbytes` counts the stored bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class Checkpoint(ABC):
    """Named tensors in memory-mapped files, and the settings stored beside them.

    `config` is config.json's content (safetensors) or the metadata as plain Python values (GGUF);
    `generation_config` is empty where there is none. A tensor that was read stays valid after `close()`.
    """

    path: Path
    format: Literal["safetensors", "gguf"]
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, dense and contiguous, in `dtype`.

        When it is stored in `dtype`, the result is a private view of the mapped file: nothing is copied, and
        writing to it changes no file. Floating point is read only as floating point, integers only as
        integers. Raises CheckpointError when there is no such tensor, when its type cannot be read as
        `dtype`, when a quantised block holds a value that is not finite, or when the checkpoint is closed.
        """
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{self.path}: there is no tensor {name}")
        stored = getattr(torch, info.dtype, None)
        floating = not isinstance(stored, torch.dtype) or stored.is_floating_point
        if floating != dtype.is_floating_point:
            kind = "numbers" if floating else "integers"
            raise CheckpointError(
                f"{self.path}: {name} holds {kind} ({info.dtype}) and cannot be read as {dtype}"
            )
        return self._read(info, dtype)

    @abstractmethod
    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        """`read`, once the name and the kind of type are known to be right."""

    def blocks(self, name: str) -> torch.Tensor:
        """A block-quantised tensor as it is stored: uint8 [rows, bytes per row], a view of the file."""
        raise CheckpointError(f"{self.path}: {name} is not stored in blocks")

    def forget(self, name: str) -> None:  # noqa: B027  (a format may have nothing to give back)
        """Let the system take back the memory in which a tensor's bytes were read; they can be read again.

        Not for a tensor of which a view was written to: that would be undone.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; every later `read` raises CheckpointError."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
