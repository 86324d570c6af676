"""Packs weights in oneDNN's own layout, for products without gradients."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Readable:
    """Holds a packed weight [rows, columns] whose rows can be read; oneDNN multiplies by `packed`.

    `blocks` [rows / block, columns / pair, block, pair] is the same memory, which lives as long as `packed`.
    Zeros may follow the last row.
    """

    packed: Tensor
    blocks: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.blocks.dtype

    def rows(self, ids: Tensor) -> Tensor:
        """Returns the rows with the indices ids [...]: [..., columns]. Every index must be that of a row.

        A row is not contiguous: reading 512 rows of 576 numbers in bfloat16 takes 0.9 ms, 0.03 ms from a
        plain tensor.
        """
        block = self.blocks.shape[2]
        return self.blocks[ids // block, :, ids % block].flatten(-2)


def pack(weight: Tensor) -> Tensor:
    """Returns the weight [out, in] in oneDNN's own layout, or unchanged where this torch or processor cannot
    use it.

    A packed weight need not be reordered in every product. The layers of a 135M model in bfloat16 take 7 ms
    instead of 10 for one row, 8 instead of 14 for eight rows. In float32 oneDNN
    sums a row sequentially, with the error of that formula; the plain product sums in blocks, which can be
    three times as exact over 1536 terms.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def pack_readable(weight: Tensor) -> Tensor | Readable:
    """Returns `pack` of a weight whose rows are read too, or the weight itself where its rows cannot be
    located.

    oneDNN does not document its layout. So far it has been blocks of rows, interleaved within a block. This
    layout is verified: the first rows and rows from all of the weight are read and compared.
    """
    packed = pack(weight)
    if not packed.is_mkldnn:
        return weight
    count, columns = weight.shape
    memory = _memory(packed, weight.dtype)
    pair = 4 // weight.dtype.itemsize
    ids = torch.cat((torch.arange(min(count, 128)), torch.linspace(0, count - 1, 512).long()))
    for block in (64, 48, 32, 16):
        if columns % pair == 0 and len(memory) == -(-count // block) * block * columns:
            found = Readable(packed, memory.view(-1, columns // pair, block, pair))
            if torch.equal(found.rows(ids), weight[ids]):
                return found
    return weight


def _memory(packed: Tensor, dtype: torch.dtype) -> Tensor:
    size = torch.ops.mkldnn._nbytes(packed)
    address = torch.ops.mkldnn.data_ptr(packed)
    return torch.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype=dtype)
