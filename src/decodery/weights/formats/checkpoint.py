"""Defines a checkpoint of any format: named tensors, and the settings that describe them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch

from decodery.errors import CheckpointError

# The numbers of a tensor that are compared at a time.
COMPARED = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Describes one stored tensor without its data.

    `shape` is in torch order (rows first). `dtype` is torch's name for a plain element type ("float32",
    "bfloat16", "int64", ...) and GGML's for a block-quantised one ("Q4_1"). `nbytes` counts the stored bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class Part(NamedTuple):
    """Says that a checkpoint is one part of a larger model.

    `of` is the architecture of the whole, and `left_out` has the names of its other parts' tensors.
    """

    of: str
    left_out: tuple[str, ...]


class Checkpoint(ABC):
    """Reads named tensors from memory-mapped files, and holds the settings stored beside them.

    `config` is the content of config.json (safetensors) or the metadata as plain Python values (GGUF);
    `generation_config` is empty if there is none. `part` is None for a whole model. A tensor that was read
    stays valid after `close()`.
    """

    path: Path
    format: Literal["safetensors", "gguf"]
    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    part: Part | None = None

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Returns one tensor, dense and contiguous, in `dtype`.

        If it is stored in `dtype`, the result is a private view of the mapped file: nothing is copied, and
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
        """Reads a tensor whose name and kind of type `read` has checked."""

    def read_part(self, name: str, index: int, dtype: torch.dtype) -> torch.Tensor:
        """Returns `read(name, dtype)[index]`, without reading the other parts where that takes longer."""
        return self.read(name, dtype)[index]

    def equal(self, first: str, second: str) -> bool:
        """True if two tensors hold the same numbers; they are read once, and a few rows at a time."""
        if (first, second) not in self._compared:
            self._compared[first, second] = self._compare(first, second)
        return self._compared[first, second]

    def _compare(self, first: str, second: str) -> bool:
        one, other = self.tensors[first], self.tensors[second]
        if one.shape != other.shape:
            return False
        types = [dtype for info in (one, other) if (dtype := getattr(torch, info.dtype, None)) is not None]
        if len(types) < 2:
            return one.dtype == other.dtype and torch.equal(self.blocks(first), self.blocks(second))
        # In its own type a tensor is a view of the file, so that only the compared rows are copied.
        a, b = (self.read(info.name, dtype) for info, dtype in zip((one, other), types, strict=True))
        step = max(1, COMPARED // one.shape[-1])
        same = all(
            torch.equal(a[row : row + step].double(), b[row : row + step].double())
            for row in range(0, len(a), step)
        )
        for name in (first, second):
            self.forget(name)
        return same

    @cached_property
    def _compared(self) -> dict[tuple[str, str], bool]:
        return {}

    @cached_property
    def warnings(self) -> list[str]:
        """Holds what `warn` was told."""
        return []

    def warn(self, message: str) -> None:
        """Adds to `warnings` that a fault of the files was corrected, once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def blocks(self, name: str, index: int | None = None) -> torch.Tensor:
        """Returns a block-quantised tensor as stored: uint8 [rows, bytes per row], a view of the file.

        `index` selects one matrix of a stack.
        """
        raise CheckpointError(f"{self.path}: {name} is not stored in blocks")

    def forget(self, name: str) -> None:  # noqa: B027  (a format may have nothing to free)
        """Lets the system free the memory of a tensor's mapped bytes; they can be read again.

        Must not be called for a tensor if a view of it was written to: the writes would be lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the files; every later `read` raises CheckpointError."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
