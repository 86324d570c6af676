"""Packs weights in the forms that the native kernels multiply: codes of 4 or 8 bits in groups of 32, or
floats.

A weight is `scale * (code - zero) + minimum`, with a scale (and minimum) for each output and each group of 32
inputs. native/weight_formats.hpp describes the layout in memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from decodery.kernels.native.library import Kernel, call_layout, library

GROUP = 32
ARENA_BYTES = 32 << 20


@dataclass(frozen=True)
class _Traits:
    number: int
    bits: int
    scale: torch.dtype | None = None
    minimum: bool = False
    parts: int = 1
    # The values of the codes of a form that has no zero.
    table: tuple[float, ...] | None = None


_FP4 = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


class Format(Enum):
    """Lists the packed forms.

    `WIDE` forms have float32 scales; `INT8_HALVES` has two float32 scales for each group. The codes of `FP4`
    are twice the numbers E2M1 of the Open Compute Project's microscaling formats.
    """

    INT4_MIN = _Traits(0, 4, torch.float16, minimum=True)
    INT4 = _Traits(1, 4, torch.float16)
    INT4_MIN_WIDE = _Traits(2, 4, torch.float32, minimum=True)
    INT8 = _Traits(3, 8, torch.float16)
    INT8_MIN = _Traits(4, 8, torch.float16, minimum=True)
    INT8_MIN_WIDE = _Traits(5, 8, torch.float32, minimum=True)
    INT8_HALVES = _Traits(6, 8, torch.float32, parts=2)
    BFLOAT16 = _Traits(7, 16)
    FLOAT32 = _Traits(8, 32)
    FP4 = _Traits(9, 4, torch.float32, table=(*_FP4, *(-value for value in _FP4)))

    @property
    def zero(self) -> int:
        """Returns the code of the value 0 in a form without a minimum."""
        return 0 if self.value.minimum or self.value.table else {4: 8, 8: 128}.get(self.value.bits, 0)


class BlockType(NamedTuple):
    """Describes a quantised type of GGML.

    `size` is the bytes of a block, `format` the form that holds the same numbers, `number` the type's number
    in GGML, `weights` the weights of a block, and `scales` the position of its float16 scales in the block,
    None if every scale is finite.
    """

    size: int
    format: Format
    number: int
    weights: int
    scales: slice | None


@dataclass(frozen=True, eq=False)
class Codes:
    """Holds a matrix [rows, columns] as the parts of its format.

    `codes` are uint8 [rows, columns] or the floats themselves; `scales` and `minima` are [rows, groups *
    parts]. With `blocks`, `codes` are instead blocks of that GGML type, uint8 [rows, bytes per row], and
    `scales` the float16 numbers in them.
    """

    format: Format
    codes: Tensor
    scales: Tensor | None = None
    minima: Tensor | None = None
    blocks: BlockType | None = None

    @property
    def shape(self) -> torch.Size:
        rows, columns = self.codes.shape
        if self.blocks is not None:
            columns = columns // self.blocks.size * self.blocks.weights
        return torch.Size((rows, columns))

    def is_finite(self) -> bool:
        """True if every weight is a finite number."""
        parts = [self.scales, self.minima] if self.scales is not None else [self.codes]
        ends = [end.item() for p in parts if p is not None for end in p.aminmax()]
        return all(map(math.isfinite, ends))


@dataclass(frozen=True, eq=False)
class _Packed:
    """Holds weights in the memory layout that the kernels multiply."""

    data: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the activations."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def nbytes(self) -> int:
        return self.data.numel()


@dataclass(frozen=True, eq=False)
class PackedWeight(_Packed):
    """Holds a matrix [rows, columns] ready for the kernels; if `gated`, rows of gate and up alternate."""

    rows: int
    columns: int
    format: Format
    gated: bool = False

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.rows, self.columns))


@dataclass(frozen=True, eq=False)
class Stacked:
    """Holds packed weights of several formats that are, one under another, one matrix [rows, columns]."""

    parts: tuple[PackedWeight, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def columns(self) -> int:
        return self.parts[0].columns

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.rows, self.columns))

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the activations."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True, eq=False)
class PackedExperts(_Packed):
    """Holds a matrix [rows, columns] for each expert, all in one format, one after another.

    If `gated`, rows of gate and up alternate.
    """

    experts: int
    rows: int
    columns: int
    format: Format
    gated: bool = False

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.experts, self.rows, self.columns))

    @property
    def step(self) -> int:
        """Returns the bytes from one expert's matrix to the next one's."""
        return self.nbytes // self.experts


_PACK = call_layout("q" * 9)


class Arena:
    """Allocates the packed weights of a model next to each other in large pages.

    A step reads all of them, and large pages need fewer address translations. An allocation lives as long as
    a tensor that uses it. Memory that was never taken is not backed by physical memory.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int) -> Tensor:
        """Returns `size` bytes aligned to a cache line; kernels may read up to 128 bytes beyond their end."""
        reserved = -(-size // 64) * 64 + 128
        if len(self._rest) < reserved + 64:
            self._rest = _mapped(max(reserved + 64, ARENA_BYTES))
            self._rest = self._rest[-self._rest.data_ptr() % 64 :]
        taken, self._rest = self._rest[:size], self._rest[reserved:]
        return taken


def _mapped(size: int) -> Tensor:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # Raised by a system without large pages.
        region.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(region, dtype=torch.uint8)


def pack(codes: Codes, *, gated: bool = False, arena: Arena | None = None) -> PackedWeight:
    """Interleaves a matrix for the kernels; the result shares no memory with `codes`."""
    rows, columns = codes.shape
    data = (arena or Arena()).take(packed_bytes(codes.format, rows, columns, gated=gated))
    _pack_into(data, codes, gated)
    return PackedWeight(data, rows, columns, codes.format, gated)


def pack_experts(
    experts: Sequence[Sequence[Codes]], *, gated: bool = False, arena: Arena | None = None
) -> PackedExperts:
    """Interleaves the matrices of all experts, each given as parts that are one matrix, one under another.

    All parts have one format. One expert's are read at a time, and the result shares no memory with them.
    """
    first = concatenated(list(experts[0]))
    form, (rows, columns) = first.format, first.shape
    step = expert_bytes(form, rows, columns, gated=gated)
    data = (arena or Arena()).take(step * len(experts))
    for index in range(len(experts)):
        codes = first if index == 0 else concatenated(list(experts[index]))
        if codes.format is not form or codes.shape != first.shape:
            raise ValueError("experts of several formats or shapes")
        _pack_into(data[index * step : (index + 1) * step], codes, gated)
    return PackedExperts(data, len(experts), rows, columns, form, gated)


def _pack_into(data: Tensor, codes: Codes, gated: bool) -> None:
    rows, columns = codes.shape
    number = codes.format.value.number
    stored = codes.blocks
    parts = [codes.codes, None, None] if stored else [codes.codes, codes.scales, codes.minima]
    parts = [None if p is None else p.contiguous() for p in parts]
    pointers = [0 if p is None else p.data_ptr() for p in parts]
    words = (*pointers, rows, columns, number, gated, data.data_ptr(), stored.number if stored else 0)
    library().decodery_run(_PACK.pack(Kernel.PACK, *words), 1)


def expert_bytes(form: Format, rows: int, columns: int, *, gated: bool = False) -> int:
    """Returns the bytes of one expert's matrix among the others."""
    return -(-packed_bytes(form, rows, columns, gated=gated) // 64) * 64


def packed_bytes(form: Format, rows: int, columns: int, *, gated: bool = False) -> int:
    """Returns the bytes of a packed matrix."""
    blocks = 2 * -(-rows // 2 // 16) if gated else -(-rows // 16)
    size: int = library().decodery_packed_bytes(form.value.number, blocks, columns)
    return size


def stack(
    parts: Sequence[Codes], *, gated: bool = False, arena: Arena | None = None
) -> PackedWeight | Stacked:
    """Packs matrices that are, one under another, one matrix; neighbours of one format become one weight.

    Gate and up alternate only if both have one format: a `Stacked` weight is never gated.
    """
    runs = [concatenated(list(run)) for _, run in groupby(parts, lambda part: (part.format, part.blocks))]
    if len(runs) == 1:
        return pack(runs[0], gated=gated, arena=arena)
    return Stacked(tuple(pack(run, arena=arena) for run in runs))


def concatenated(parts: list[Codes]) -> Codes:
    """Returns matrices of one format as one, each under the one before; raises ValueError for several
    formats.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if any((p.format, p.blocks) != (first.format, first.blocks) for p in parts):
        raise ValueError("parts of several formats")
    return replace(
        first,
        codes=torch.cat([p.codes for p in parts]),
        scales=None if first.scales is None else torch.cat([p.scales for p in parts if p.scales is not None]),
        minima=None if first.minima is None else torch.cat([p.minima for p in parts if p.minima is not None]),
    )
