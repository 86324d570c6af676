"""Reads folders whose experts are stored in four bits, as those of gpt-oss.

A matrix is two tensors of bytes: `NAME_blocks` [..., rows, groups, 16] and `NAME_scales` [..., rows, groups].
The format of a group is MXFP4 of the Open Compute Project's microscaling specification (2023). It is also a
type of GGML, which orders the 32 numbers of a group in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.dequantise import dequantise

KIND = "MXFP4"
BLOCKS, SCALES = "_blocks", "_scales"
GROUP, BYTES = 32, 16


def is_mxfp4(config: Mapping[str, Any]) -> bool:
    """True if the content of a config.json declares this form."""
    declared = config.get("quantization_config")
    return isinstance(declared, Mapping) and declared.get("quant_method") == "mxfp4"


class Mxfp4Checkpoint(Checkpoint):
    """Reads a folder's pairs of blocks and scales as tensors of GGML's type MXFP4, under the blocks' names.

    Raises CheckpointError if a pair does not go together.
    """

    format: Literal["safetensors", "gguf"] = "safetensors"

    def __init__(self, folder: Checkpoint) -> None:
        self._folder = folder
        self.path, self.config = folder.path, folder.config
        self.generation_config = folder.generation_config
        self.tensors = self._joined(folder.tensors)

    def close(self) -> None:
        self._folder.close()

    def forget(self, name: str) -> None:
        self._folder.forget(name)

    def blocks(self, name: str, index: int | None = None) -> Tensor:
        blocks, scales = (self._bytes(each, index) for each in (name, _scales_of(name)))
        return in_ggml_order(blocks.flatten(0, -3), scales.flatten(0, -2))

    def read_part(self, name: str, index: int, dtype: torch.dtype) -> Tensor:
        info = self.tensors[name]
        if info.dtype != KIND:
            return self._folder.read_part(name, index, dtype)
        out = torch.empty(info.shape[1:], dtype=dtype)
        self._decode(name, index, out)
        return out

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> Tensor:
        if info.dtype != KIND:
            return self._folder.read(info.name, dtype)
        out = torch.empty(info.shape, dtype=dtype)
        if len(info.shape) == 2:
            self._decode(info.name, None, out)
        for index in range(len(out) if len(info.shape) > 2 else 0):
            self._decode(info.name, index, out[index])
        return out

    def _decode(self, name: str, index: int | None, out: Tensor) -> None:
        raw = self.blocks(name, index)
        if not dequantise(raw.view(-1, BYTES + 1), KIND, out.view(-1, GROUP)):
            raise CheckpointError(f"{self.path}: {name} is damaged: it holds values that are not finite")

    def _bytes(self, name: str, index: int | None) -> Tensor:
        if index is None:
            return self._folder.read(name, torch.uint8)
        return self._folder.read_part(name, index, torch.uint8)

    def _joined(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        found = {name: info for name, info in tensors.items() if info.dtype != "uint8"}
        for name, info in tensors.items():
            if info.dtype != "uint8" or name.endswith(SCALES):
                continue
            scales = tensors.get(_scales_of(name))
            if scales is None or scales.dtype != "uint8" or info.shape != (*scales.shape, BYTES):
                raise CheckpointError(
                    f"{self.path}: {name} {list(info.shape)} and {_scales_of(name)} are no matrix in {KIND}"
                )
            shape = (*scales.shape[:-1], scales.shape[-1] * GROUP)
            found[name] = TensorInfo(name, shape, KIND, info.nbytes + scales.nbytes)
        return found


def _scales_of(name: str) -> str:
    return name.removesuffix(BLOCKS) + SCALES


def in_ggml_order(blocks: Tensor, scales: Tensor) -> Tensor:
    """Returns rows of GGML's blocks, uint8 [rows, groups * 17], of blocks [rows, groups, 16] and scales.

    Byte i has the numbers 2i and 2i + 1 here, and i and i + 16 in GGML, the first in its low half.
    """
    numbers = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    bytes_ = numbers[..., :BYTES] | numbers[..., BYTES:] << 4
    return torch.cat((scales[..., None], bytes_), -1).flatten(-2)
