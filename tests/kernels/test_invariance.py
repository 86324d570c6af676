"""Checks the kernels' part of "same request, same text".

Native kernels give a row the same bits in every batch. torch may sum in another order, and differs by
rounding errors.
"""

from __future__ import annotations

import random
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
from tests.kernels.paged import Shape, empty_cache, random_sequence, run_step
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


SHAPES = [Shape(6, 2, 16), Shape(4, 4, 12), Shape(9, 3, 64), Shape(4, 1, 16)]
LENGTH, BLOCK = 700, 140


def telling_sequence(kind: str, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a sequence whose scores, or sums of values, are rounding errors alone, so that the order of
    sums shows.
    """
    q, k, v = random_sequence(LENGTH, shape, 0, torch.float32)
    generator = torch.Generator().manual_seed(1)
    if kind == "scores":
        half = shape.dim // 2
        order = torch.randperm(half, generator=generator)
        q, k = q[..., :half].to(dtype) * 2**20, k[..., :half]
        q, k = torch.cat((q, q[..., order]), -1), torch.cat((k, -k[..., order]), -1)
    else:
        v = v * torch.exp2(torch.randint(0, 20, v.shape, generator=generator))
        halves = v.view(-1, 2, BLOCK // 2, *v.shape[1:])
        halves[:, 1] = -halves[:, 0, torch.randperm(BLOCK // 2, generator=generator)]
        q = q * 0
    return q.to(dtype), k.to(dtype), v.to(dtype)


KINDS = ["scores", "values"]


def whole_sequence(
    kind: str, shape: Shape, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    sequence = telling_sequence(kind, shape, dtype)
    (result,) = run_step(empty_cache(64, shape, dtype), [sequence], [range(44)], [(0, LENGTH)])
    return sequence, result


def single_cuts() -> list[tuple[int, int]]:
    """Returns the queries after which all values cancel, each alone."""
    ends = range(BLOCK, LENGTH + 1, BLOCK)
    return [cut for end in ends for cut in ((end - BLOCK, end - 1), (end - 1, end))]


def random_cuts(seed: int, longest: int) -> list[tuple[int, int]]:
    choose = random.Random(seed)
    cuts, start = [], 0
    while start < LENGTH:
        stop = min(LENGTH, start + choose.choice([1, 2, 3, 7, 16, 64, 100, longest]))
        cuts.append((start, stop))
        start = stop
    return cuts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_does_not_depend_on_how_its_sequence_is_cut(
    kind: str, dtype: torch.dtype, shape: Shape
) -> None:
    sequence, expected = whole_sequence(kind, shape, dtype)
    for table in (range(3, 47), random.Random(0).sample(range(50), 44)):
        for cuts in (single_cuts(), random_cuts(0, longest=500), random_cuts(1, longest=300)):
            cache = empty_cache(50, shape, dtype)
            parts = [run_step(cache, [sequence], [table], [cut])[0] for cut in cuts]
            assert torch.equal(torch.cat(parts), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_does_not_depend_on_its_mates_and_pages(kind: str, dtype: torch.dtype, shape: Shape) -> None:
    sequence, expected = whole_sequence(kind, shape, dtype)
    cache = empty_cache(64 * 8, shape, dtype)
    choose = random.Random(1)
    pages = choose.sample(range(64 * 8), 64 * 8)
    mates = [random_sequence(LENGTH, shape, seed, dtype) for seed in range(1, 8)]
    tables = [pages[i * 44 : (i + 1) * 44] for i in range(8)]
    run_step(cache, mates, tables[1:], [(0, LENGTH)] * 7)
    for start, stop in random_cuts(5, longest=200):
        count = choose.randrange(8)
        others = choose.sample(range(7), count)
        # Other sequences of all lengths, some of which share the call.
        ranges = []
        for _ in others:
            first = choose.choice([start, choose.randrange(LENGTH - 5)])
            ranges.append((first, min(LENGTH, first + choose.choice([1, 1, stop - start, 5]))))
        place = choose.randrange(count + 1)
        ranges.insert(place, (start, stop))
        others.insert(place, -1)
        sequences = [sequence if other < 0 else mates[other] for other in others]
        results = run_step(cache, sequences, [tables[other + 1] for other in others], ranges)
        assert torch.equal(results[place], expected[start:stop]), (start, stop)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_does_not_depend_on_later_keys_in_its_pages(dtype: torch.dtype) -> None:
    shape = SHAPES[0]
    sequence, expected = whole_sequence("values", shape, dtype)
    cache = tuple(torch.randn(64, 16, shape.kv_heads, shape.dim).to(dtype) * 50 for _ in range(2))
    for start, stop in random_cuts(9, longest=150):
        (result,) = run_step(cache, [sequence], [range(44)], [(start, stop)])
        assert torch.equal(result, expected[start:stop])
