"""Weights as oneDNN lays them out for itself, for products without gradients."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Readable:
    """A packed weight [rows, columns] whose rows can be read: `packed` is what oneDNN multiplies by.

    `blocks` [rows / block, columns / pair, block, pair] is the same memory, which lives as long as `packed`;
    behind the last row may stand zeros.
    """

    packed: Tensor
    blocks: Tensor

    def rows(self, ids: Tensor) -> Tensor:
        """The rows that ids [...] name, of which there must be such: [..., columns].

        A row lies scattered: 512 of 576 numbers in bfloat16 take 0.9 ms, plain ones 0.03.
        """
        block = self.blocks.shape[2]
        return self.blocks[ids // block, :, ids % block].flatten(-2)


def pack(weight: Tensor) -> Tensor:
    """The weight [out, in] in oneDNN's own layout.

    That saves reordering it in every product: 7 against 10 ms for the layers of a 135M model and one row in
    bfloat16, 8 against 14 for eight rows. Where this torch or the processor cannot, the weight itself.
    In bfloat16 the products have the same bits. In float32 oneDNN sums a row in one run, with the formula's
    own error; the plain product sums in blocks, which can be three times as exact over 1536 terms.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def pack_readable(weight: Tensor) -> Tensor | Readable:
    """`pack` of a weight whose rows are needed too; the weight itself where they cannot be found again.

    oneDNN does not say how it lays a weight out. It has been blocks of so many rows, in which the rows take
    turns: what is read that way is compared with the weight's first rows and others over all of it.
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
