"""Checks that a query's attention does not depend on other queries: bit for bit natively, nearly on torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.kernels.native.library import available
from decodery.kernels.native.native_kernels import NativeKernels
from tests.kernels.paged import QKV, REFERENCE, Shape, empty_cache, random_sequence, run_step


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Sets two torch threads: the way in which torch splits work between them could make rows depend on each
    other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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


@dataclass(frozen=True)
class Backend:
    """Runs steps over pages in `stored`; natively equal bits are the law, on torch a bound.

    `kind` is that of a telling sequence, None a random one.
    """

    kernels: Kernels
    stored: torch.dtype
    kind: str | None

    @property
    def native(self) -> bool:
        return self.kernels is not REFERENCE

    def sequence(self, shape: Shape, seed: int) -> QKV:
        dtype = torch.float32 if self.native else self.stored
        if self.kind is not None and seed == 0:
            return telling_sequence(self.kind, shape, dtype)
        return random_sequence(LENGTH, shape, seed, dtype)

    def run(
        self,
        cache: tuple[Tensor, Tensor],
        sequences: Sequence[QKV],
        tables: Sequence[Sequence[int]],
        ranges: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        return run_step(cache, sequences, tables, ranges, kernels=self.kernels)

    def whole(self, shape: Shape) -> tuple[QKV, Tensor]:
        sequence = self.sequence(shape, 0)
        (result,) = self.run(empty_cache(64, shape, self.stored), [sequence], [range(44)], [(0, LENGTH)])
        return sequence, result

    def assert_same(self, found: Tensor, expected: Tensor) -> None:
        if self.native:
            assert torch.equal(found, expected)
        else:
            most = 2e-2 if self.stored == torch.bfloat16 else 2e-6
            torch.testing.assert_close(found, expected, atol=most, rtol=0)


STORED = [torch.float32, torch.bfloat16]
BACKENDS = [Backend(REFERENCE, stored, None) for stored in STORED]
if available():
    KINDS = ["scores", "values"]
    BACKENDS += [Backend(NativeKernels(), stored, kind) for stored in STORED for kind in KINDS]
backends = pytest.mark.parametrize(
    "backend", BACKENDS, ids=lambda b: f"native-{b.kind}-{b.stored}" if b.native else f"torch-{b.stored}"
)


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


@backends
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_does_not_depend_on_how_its_sequence_is_cut(shape: Shape, backend: Backend) -> None:
    sequence, expected = backend.whole(shape)
    for table in (range(3, 47), random.Random(0).sample(range(50), 44)):
        for cuts in (single_cuts(), random_cuts(0, longest=500), random_cuts(1, longest=300)):
            cache = empty_cache(50, shape, backend.stored)
            parts = [backend.run(cache, [sequence], [table], [cut])[0] for cut in cuts]
            backend.assert_same(torch.cat(parts), expected)


@backends
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_does_not_depend_on_its_mates_and_pages(shape: Shape, backend: Backend) -> None:
    sequence, expected = backend.whole(shape)
    cache = empty_cache(64 * 8, shape, backend.stored)
    choose = random.Random(1)
    pages = choose.sample(range(64 * 8), 64 * 8)
    mates = [backend.sequence(shape, seed) for seed in range(1, 8)]
    tables = [pages[i * 44 : (i + 1) * 44] for i in range(8)]
    backend.run(cache, mates, tables[1:], [(0, LENGTH)] * 7)
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
        results = backend.run(cache, sequences, [tables[other + 1] for other in others], ranges)
        backend.assert_same(results[place], expected[start:stop])


@backends
def test_a_query_does_not_depend_on_later_keys_in_its_pages(backend: Backend) -> None:
    shape = SHAPES[0]
    sequence, expected = backend.whole(shape)
    k, v = (torch.randn(64, 16, shape.kv_heads, shape.dim).to(backend.stored) * 50 for _ in range(2))
    for start, stop in random_cuts(9, longest=150):
        (result,) = backend.run((k, v), [sequence], [range(44)], [(start, stop)])
        backend.assert_same(result, expected[start:stop])
