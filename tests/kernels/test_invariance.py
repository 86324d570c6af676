"""Checks that a row has the same bits in every batch: the kernels' part of "same request, same text"."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from decodery.kernels.reference import torch_kernels
from tests.kernels.paged import Shape, empty_cache, random_sequence, run_step
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
