"""Reads checkpoints in the hub's layout: config.json and one safetensors file, or shards with an index."""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.report import listed

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# Element types of the format: torch's name, and the bytes of one element.
ELEMENTS: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


class ConfigCheckpoint(Checkpoint):
    """Reads a folder with config.json whose weights are not there: it has no tensors."""

    format: Literal["safetensors", "gguf"] = "safetensors"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_json_file(folder / "config.json")
        generation = folder / "generation_config.json"
        self.generation_config: Mapping[str, Any] = read_json_file(generation) if generation.exists() else {}
        self.tensors: Mapping[str, TensorInfo] = {}

    def close(self) -> None:
        pass

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        raise CheckpointError(f"{self.path} holds no weights")


class SafetensorsCheckpoint(ConfigCheckpoint):
    """Reads a folder with config.json and safetensors files; see `Checkpoint`.

    Opening reads only the headers. Raises CheckpointError when a file is missing or damaged, when the index
    names shards or tensors that don't exist, or when a shard would lie outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = ExitStack()
        try:
            self._handles: dict[str, Any] = {}
            self.tensors = self._open_files()
        except BaseException:
            self._files.close()
            raise

    def close(self) -> None:
        self._handles.clear()
        self._files.close()

    def _open_files(self) -> Mapping[str, TensorInfo]:
        names = sorted(entry.name for entry in self.path.iterdir() if entry.name.endswith(".safetensors"))
        if (self.path / INDEX).exists():
            return self._open_shards(_weight_map(self.path / INDEX))
        if SINGLE in names:
            names = [SINGLE]
        if len(names) != 1:
            raise CheckpointError(
                f"{self.path} needs {SINGLE}, {INDEX} or a single .safetensors file; it holds "
                f"{', '.join(names[:8]) or 'another index only'}"
            )
        return self._open_file(self.path / names[0])

    def _open_shards(self, weight_map: Mapping[str, str]) -> Mapping[str, TensorInfo]:
        shards = sorted(set(weight_map.values()))
        missing = [shard for shard in shards if not (self.path / shard).is_file()]
        if missing:
            raise CheckpointError(f"{self.path / INDEX} names shards that are not there: {listed(missing)}")
        found = {shard: self._open_file(self.path / shard) for shard in shards}
        lost = [f"{name} (in {shard})" for name, shard in weight_map.items() if name not in found[shard]]
        if lost:
            raise CheckpointError(f"{self.path / INDEX} names tensors that their shard lacks: {listed(lost)}")
        return {name: found[shard][name] for name, shard in weight_map.items()}

    def _open_file(self, path: Path) -> dict[str, TensorInfo]:
        try:
            file = self._files.enter_context(safe_open(path, framework="pt"))
            infos: dict[str, TensorInfo] = {}
            for name in file.keys():  # noqa: SIM118  (not a dict: the file itself has no iterator)
                part = file.get_slice(name)
                infos[name] = _info(name, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{path}: damaged safetensors file: {error}") from error
        self._handles |= dict.fromkeys(infos, file)
        return infos

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        file = self._handles.get(info.name)
        if file is None:
            raise CheckpointError(f"{self.path}: the checkpoint is closed")
        if not hasattr(torch, info.dtype):
            raise CheckpointError(f"{self.path}: {info.name} is stored as {info.dtype}, which cannot be read")
        try:
            tensor: torch.Tensor = file.get_tensor(info.name)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: {info.name} cannot be read: {error}") from error
        return tensor.to(dtype).contiguous()

    def forget(self, name: str) -> None:
        if name not in self._handles or sys.platform != "linux":
            return
        # The library owns the map, so its address is known only from a tensor.
        mapped: torch.Tensor = self._handles[name].get_tensor(name)
        page = mmap.PAGESIZE
        start = -(-mapped.data_ptr() // page) * page
        end = (mapped.data_ptr() + mapped.nbytes) // page * page
        if end > start:
            size = ctypes.c_size_t(end - start)
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), size, mmap.MADV_DONTNEED)


def _info(name: str, shape: tuple[int, ...], code: str) -> TensorInfo:
    dtype, size = ELEMENTS.get(code, (code, 1))
    return TensorInfo(name, shape, dtype, math.prod(shape) * size)


def _weight_map(path: Path) -> Mapping[str, str]:
    weight_map = read_json_file(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path}: weight_map must map tensor names to file names")
    outside = sorted({shard for shard in weight_map.values() if not _is_plain_name(shard)})
    if outside:
        raise CheckpointError(
            f"{path}: a shard must be a .safetensors file of this folder, not {listed(outside)}"
        )
    return weight_map


def _is_plain_name(shard: str) -> bool:
    return shard.endswith(".safetensors") and not any(mark in shard for mark in "/\\:\0")


def read_json_file(path: Path) -> Mapping[str, Any]:
    """Returns the object of a JSON file; raises `CheckpointError` naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
