"""Makes inputs that reveal the order of a product's sums, and checks that rows have equal bits in every
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from decodery.kernels.reference import torch_kernels


def rows(width: int, dtype: torch.dtype, count: int = 640, seed: int = 0) -> Tensor:
    return (torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def cancelling(inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns rows and a weight whose every product has its opposite elsewhere in the row.

    Only the rounding of the sums remains, so another order of summing shows in every element, and bfloat16
    results hide nothing.
    """
    order = torch.randperm(inputs // 2, generator=torch.Generator().manual_seed(0))
    x, weight = rows(inputs // 2, dtype), rows(inputs // 2, dtype, outputs, seed=1)
    return torch.cat((x, x[:, order]), 1), torch.cat((weight, -weight[:, order]), 1)


def padded(x: Tensor) -> Tensor:
    short = -len(x) % torch_kernels.row_multiple(x.dtype)
    return torch.cat((x, x.new_zeros(short, *x.shape[1:])))


def assert_rows_stand_alone(
    kernel: Callable[[Tensor], Tensor], x: Tensor, counts: Iterable[int], starts: Iterable[int] = (0, 37)
) -> None:
    whole = kernel(x)
    for count in counts:
        for start in starts:
            part = kernel(x[start : start + count].clone())
            assert torch.equal(part, whole[start : start + count]), (count, start)
