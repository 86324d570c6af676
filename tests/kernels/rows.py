"""Makes inputs that reveal the order of a product's sums, and bounds the error of a product in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


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


def assert_rows_stand_alone(
    kernel: Callable[[Tensor], Tensor], x: Tensor, counts: Iterable[int], starts: Iterable[int] = (0, 37)
) -> None:
    """Raises `AssertionError` unless rows have the same bits in every batch."""
    whole = kernel(x)
    for count in counts:
        for start in starts:
            part = kernel(x[start : start + count].clone())
            assert torch.equal(part, whole[start : start + count]), (count, start)


def assert_rows_are_near(
    kernel: Callable[[Tensor], Tensor], x: Tensor, counts: Iterable[int], starts: Iterable[int] = (0, 37)
) -> None:
    """Raises `AssertionError` unless rows differ from batch to batch by a few roundings at most."""
    whole = kernel(x)
    near = 4 * torch.finfo(x.dtype).eps
    for count in counts:
        for start in starts:
            part, expected = kernel(x[start : start + count].clone()), whole[start : start + count]
            torch.testing.assert_close(part, expected, rtol=near, atol=near * expected.abs().max().item())


def assert_products_are_exact(
    kernel: Callable[[Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    counts: Iterable[int],
    starts: Iterable[int] = (0, 37),
) -> None:
    """Raises `AssertionError` unless `linear` has in every batch an error that rounding explains.

    The bound holds for any order in which n products are summed in float32: 4 * sqrt(n) * 2**-24 times the
    sum of their absolute values (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis,
    2019). In bfloat16 the product and its sum with the bias are rounded to 8 bits once each.
    """
    wide = x.double(), weight.double()
    exact = wide[0] @ wide[1].T
    bound = 4 * (x.shape[1] + 1) ** 0.5 * 2**-24 * (wide[0].abs() @ wide[1].abs().T)
    if bias is not None:
        bound += 2**-23 * (exact.abs() + bias.double().abs())
    if x.dtype == torch.bfloat16:
        bound += 2**-8 * (exact.abs() + bound)
    if bias is not None:
        exact = exact + bias.double()
    if x.dtype == torch.bfloat16 and bias is not None:
        bound += 2**-8 * (exact.abs() + bound)
    for count in counts:
        for start in starts:
            part = slice(start, start + count)
            error = (kernel(x[part].clone()).double() - exact[part]).abs()
            assert (error <= bound[part]).all(), (count, start, (error / bound[part]).max())
