"""Converts a checkpoint's matrices to the form of the native kernels, one stored tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from decodery.errors import CheckpointError
from decodery.kernels.ggml_blocks import PACKED_TYPES, codes_from_blocks
from decodery.kernels.packed_weights import Codes, Format
from decodery.kernels.quantise import quantise
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.layouts.block_codes import CODED_TYPES, codes_of
from decodery.weights.transforms import Transform

FORMATS = {
    "int4": Format.INT4_MIN,
    "int8": Format.INT8,
    "bf16": Format.BFLOAT16,
    "float32": Format.FLOAT32,
}


@dataclass(frozen=True)
class Packing:
    """Selects the form in which a checkpoint's matrices are held.

    `quantization` is "int4", "int8", "bf16", "float32", or None for the stored values, bit for bit.
    `delicate` are glob patterns of tensors that are held in int8 instead of int4, and `exact` of those that
    are held as stored. `threads` is the number of threads that quantise.
    """

    quantization: str | None = None
    delicate: Sequence[str] = ()
    exact: Sequence[str] = ()
    threads: int = 1

    def format_of(self, info: TensorInfo) -> Format:
        """Returns the form of one stored matrix."""
        form = self._form(info.name)
        if form is not None:
            return FORMATS[form]
        if info.dtype in PACKED_TYPES:
            return PACKED_TYPES[info.dtype].format
        if info.dtype in CODED_TYPES:
            return CODED_TYPES[info.dtype].format
        return Format.BFLOAT16 if info.dtype == "bfloat16" else Format.FLOAT32

    def codes(
        self, checkpoint: Checkpoint, name: str, transform: Transform | None = None, index: int | None = None
    ) -> Codes:
        """Returns one stored matrix in its form, after `transform`. `index` selects one of a stack.

        Blocks whose elements a transform moves or changes are dequantised to float32.
        Raises CheckpointError when it cannot be read or holds values that its form cannot represent.
        """
        form = self._form(name)
        if form is None:
            codes = _as_stored(checkpoint, name, transform, index)
        else:
            dense = _transformed(_read(checkpoint, name, index, _nearest(checkpoint, name)), transform)
            codes = quantise(dense, form, threads=self.threads)
        if codes.scales is not None and not codes.is_finite():
            problem = "is damaged" if form is None else f"cannot be packed as {form}"
            raise CheckpointError(
                f"{checkpoint.path}: {name} {problem}: it holds values that are not finite"
                + ("" if form is None else " or too large")
            )
        return codes

    def _form(self, name: str) -> str | None:
        if any(fnmatchcase(name, pattern) for pattern in self.exact):
            return None
        if self.quantization == "int4" and any(fnmatchcase(name, pattern) for pattern in self.delicate):
            return "int8"
        return self.quantization


def _as_stored(checkpoint: Checkpoint, name: str, transform: Transform | None, index: int | None) -> Codes:
    kind = checkpoint.tensors[name].dtype
    if kind in PACKED_TYPES and (transform is None or transform.moves_rows):
        return codes_from_blocks(_transformed(checkpoint.blocks(name, index), transform), kind)
    if kind in CODED_TYPES and (transform is None or transform.moves_rows):
        return codes_of(_transformed(checkpoint.blocks(name, index), transform), kind)
    if kind == "bfloat16":
        return Codes(Format.BFLOAT16, _transformed(_read(checkpoint, name, index, torch.bfloat16), transform))
    return Codes(Format.FLOAT32, _transformed(_read(checkpoint, name, index, torch.float32), transform))


def _read(checkpoint: Checkpoint, name: str, index: int | None, dtype: torch.dtype) -> torch.Tensor:
    return checkpoint.read(name, dtype) if index is None else checkpoint.read_part(name, index, dtype)


def _nearest(checkpoint: Checkpoint, name: str) -> torch.dtype:
    """Returns the stored dtype, in which reading is a view of the file; float32 for blocks."""
    stored = getattr(torch, checkpoint.tensors[name].dtype, None)
    return stored if isinstance(stored, torch.dtype) and stored.is_floating_point else torch.float32


def _transformed(tensor: torch.Tensor, transform: Transform | None) -> torch.Tensor:
    return tensor if transform is None else transform.load(tensor)
