"""Checks the kernels' part of "same request, same text".

Native kernels give a row the same bits in every batch. torch may sum in another order, and differs by
rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import pack
from decodery.kernels.quantise import quantise
from decodery.kernels.reference import torch_kernels
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.rows import (
    assert_products_are_exact,
    assert_rows_are_near,
    assert_rows_stand_alone,
    cancelling,
    rows,
)

DTYPES = [torch.float32, torch.bfloat16]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 31, 33, 95, 103, 201]


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Sets two torch threads: the way in which torch splits work between them could make rows depend on each
    other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@built
@pytest.mark.parametrize("form", ["float32", "bf16", "int8", "int4"])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 96), (80, 48), (576, 160), (2048, 64)])
def test_a_native_row_has_the_same_bits_in_every_batch(form: str, inputs: int, outputs: int) -> None:
    kernels = NativeKernels()
    x, matrix = cancelling(inputs, outputs, torch.bfloat16)
    x, weight = x.float(), pack(quantise(matrix.float(), form))
    gated = pack(quantise(matrix.float(), form), gated=True)
    bias = rows(outputs, torch.float32, 1)[0]
    whole = kernels.linear(x, weight, bias), kernels.gated_linear(x, gated)
    for setting in SETTINGS:
        with running(setting):
            for count in COUNTS if setting[1] == 2 else (1, 5, 33):
                part = slice(37, 37 + count)
                assert torch.equal(kernels.linear(x[part], weight, bias), whole[0][part]), (setting, count)
                assert torch.equal(kernels.gated_linear(x[part], gated), whole[1][part]), (setting, count)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(48, 97), (80, 48), (576, 960), (1536, 576), (576, 4096), (2048, 512)]
)
def test_in_every_batch_a_torch_row_is_exact_but_for_rounding(
    dtype: torch.dtype, inputs: int, outputs: int, packed: bool
) -> None:
    bias = rows(outputs, dtype, 1)[0]
    random = rows(inputs, dtype), rows(inputs, dtype, outputs, seed=1)
    for (x, matrix), added in ((cancelling(inputs, outputs, dtype), None), (random, bias)):
        held = torch_kernels.pack(matrix) if packed else matrix
        assert_products_are_exact(
            lambda x: torch_kernels.linear(x, held, added),  # noqa: B023
            x,
            matrix,
            added,
            COUNTS,
        )


WIDTHS = pytest.mark.parametrize("width", [6, 34, 160, 576, 700, 3072])


@built
@WIDTHS
def test_a_row_of_the_other_native_kernels_has_the_same_bits_in_every_batch(width: int) -> None:
    for setting in SETTINGS:
        with running(setting):
            check_other_kernels(NativeKernels(), width, torch.float32, assert_rows_stand_alone)


@pytest.mark.parametrize("dtype", DTYPES)
@WIDTHS
def test_a_row_of_the_other_torch_kernels_depends_on_its_batch_in_the_last_bits_alone(
    dtype: torch.dtype, width: int
) -> None:
    check_other_kernels(torch_kernels, width, dtype, assert_rows_are_near)


def check_other_kernels(kernels: Kernels, width: int, dtype: torch.dtype, check: Callable[..., None]) -> None:
    x, weight = rows(width, dtype), rows(width, dtype, 1)[0]
    check(lambda x: kernels.rms_norm(x, weight, 1e-5), x, COUNTS)
    check(lambda x: kernels.layer_norm(x, weight, weight, 1e-5), x, COUNTS)
    check(kernels.gated, x, COUNTS)
    turns = rows(width // 2, torch.float32, 1)
    cos, sin = torch.cat([turns.cos()] * 2, -1), torch.cat([-turns.sin(), turns.sin()], -1)

    def rotated(x: Tensor) -> Tensor:
        return kernels.rotary(x[:, None], cos.expand(len(x), -1), sin.expand(len(x), -1))

    check(rotated, x, COUNTS)
