"""Checks linear biases of attention scores against the slopes of the paper."""

from __future__ import annotations

import pytest
import torch

from decodery.models.layers.alibi import alibi


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (8, [2**-i for i in range(1, 9)]),
        (12, [*(2**-i for i in range(1, 9)), *(2 ** -(i - 0.5) for i in range(1, 5))]),
    ],
)
def test_slopes_are_those_of_the_paper(heads: int, slopes: list[float]) -> None:
    bias = alibi(heads, 10)
    assert bias.table.dtype == torch.float32
    assert bias.zero == 9
    distances = torch.arange(9.0, -1, -1)
    torch.testing.assert_close(bias.table, -torch.tensor(slopes)[:, None] * distances, atol=0, rtol=1e-7)


def test_the_largest_exponent_and_the_scale_are_factors() -> None:
    assert torch.equal(alibi(4, 10, largest=16.0).table, alibi(8, 10, largest=16.0).table[1::2])
    assert torch.equal(alibi(4, 10, scale=0.5).table, 0.5 * alibi(4, 10).table)
