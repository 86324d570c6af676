"""Checks that a row has the same bits in every batch: the kernels' part of "same request, same text"."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from decodery.kernels.reference import torch_kernels
from tests.kernels.rows import assert_rows_stand_alone, cancelling, padded, rows

DTYPES = [torch.float32, torch.bfloat16]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 31, 33, 95, 103, 201, 255, 329, 511, 513]


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Sets two torch threads: the way in which torch splits work between them could make rows depend on each
    other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(48, 96), (80, 48), (576, 960), (1536, 576), (576, 4096), (2048, 512)]
)
def test_a_row_does_not_depend_on_its_batch(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    x, weight = cancelling(inputs, outputs, dtype)
    assert 0 < torch_kernels.linear(x, weight).abs().mean() < 1e-3
    for bias in (None, rows(outputs, dtype, 1)[0]):
        assert_rows_stand_alone(
            lambda x: torch_kernels.linear(padded(x), weight, bias)[: len(x)],  # noqa: B023
            x,
            COUNTS,
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [6, 34, 160, 576, 700, 3072])
def test_a_row_of_the_other_kernels_does_not_depend_on_its_batch(dtype: torch.dtype, width: int) -> None:
    x = rows(width, dtype)
    weight = rows(width, dtype, 1)[0]
    assert_rows_stand_alone(lambda x: torch_kernels.rms_norm(x, weight, 1e-5), x, COUNTS)
    assert_rows_stand_alone(lambda x: torch_kernels.layer_norm(x, weight, weight, 1e-5), x, COUNTS)
    assert_rows_stand_alone(torch_kernels.gated, x, COUNTS)
    angles = rows(width, torch.float32, 1)
    assert_rows_stand_alone(lambda x: torch_kernels.rotary(x[:, None], angles.cos(), angles.sin()), x, COUNTS)
