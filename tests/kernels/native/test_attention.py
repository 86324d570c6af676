"""Compares attention over pages with float64 and with itself in other batches; replays recorded calls."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.native.native_kernels import NativeKernels
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.paged import (
    Shape,
    as_kept,
    empty_cache,
    plain_attention,
    random_sequence,
    run_step,
    shape_of,
)
from tests.kernels.rows import rows

pytestmark = built

LENGTH, PAGES = 300, 19
Sequences = Sequence[tuple[Tensor, Tensor, Tensor]]


def step(
    cache: tuple[Tensor, Tensor],
    sequences: Sequences,
    tables: Sequence[Sequence[int]],
    ranges: Sequence[tuple[int, int]],
    window: int | None = None,
) -> list[Tensor]:
    layer = shape_of(sequences[0]).layer(window=window)
    return run_step(cache, sequences, tables, ranges, layer, NativeKernels())


SHAPES = [
    Shape(9, 3, 64),
    Shape(6, 2, 32),
    Shape(4, 4, 12),
    Shape(4, 1, 40),
    Shape(8, 2, 128),
    Shape(2, 1, 256),
]
STORED = [torch.float32, torch.float16, torch.bfloat16, torch.int8]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [None, 40])
def test_the_error_is_at_most_twice_the_reference_and_no_bit_depends_on_cuts_or_settings(
    stored: torch.dtype, shape: Shape, window: int | None
) -> None:
    sequence = random_sequence(LENGTH, shape, 0, torch.float32)
    kept = as_kept(sequence, stored)
    layer = shape.layer(window=window)
    exact = plain_attention(kept, torch.float64, layer)
    limit = 2 * (plain_attention(kept, torch.float32, layer) - exact).abs().max() + 5e-7
    whole = step(empty_cache(32, shape, stored), [sequence], [range(PAGES)], [(0, LENGTH)], window)[0]
    assert (whole - exact).abs().max() <= limit
    for index, setting in enumerate(SETTINGS):
        if setting == ("portable", 1):
            continue
        choose = random.Random(index)
        table, cache = choose.sample(range(32), PAGES), empty_cache(32, shape, stored)
        start, parts = 0, []
        with running(setting):
            while start < LENGTH:
                stop = min(LENGTH, start + choose.choice([1, 1, 3, 7, 8, 64, 100]))
                parts += step(cache, [sequence], [table], [(start, stop)], window)
                start = stop
        assert torch.equal(torch.cat(parts), whole), setting


def test_sequences_do_not_see_each_other() -> None:
    shape = SHAPES[0]
    sequences = [random_sequence(LENGTH, shape, seed, torch.float32) for seed in range(3)]
    tables = [range(i * PAGES, (i + 1) * PAGES) for i in range(3)]
    cache = empty_cache(3 * PAGES, shape, torch.float32)
    alone = [
        step(empty_cache(PAGES, shape, torch.float32), [s], [range(PAGES)], [(0, LENGTH)])[0]
        for s in sequences
    ]
    for ranges in (
        [(0, 10), (0, LENGTH), (0, 77)],
        [(10, 11), (299, 300), (77, 300)],
        [(11, 300), (0, 1), (5, 6)],
    ):
        found = step(cache, sequences, tables, ranges)
        for part, whole, (start, stop) in zip(found, alone, ranges, strict=True):
            assert torch.equal(part, whole[start:stop])


@pytest.mark.parametrize("window", [None, 300])
def test_long_prompts_and_single_queries_of_long_sequences_share_a_step(window: int | None) -> None:
    shape = Shape(6, 2, 32)
    ends = [700, 601, 520, 20]
    starts = [300, 600, 0, 15]
    sequences = [random_sequence(end, shape, seed, torch.float32) for seed, end in enumerate(ends)]
    firsts = [0, 44, 82, 115]
    tables = [range(first, first + -(-end // 16)) for first, end in zip(firsts, ends, strict=True)]
    cache = empty_cache(117, shape, torch.float16)
    step(
        cache,
        [sequences[i] for i in (0, 1, 3)],
        [tables[i] for i in (0, 1, 3)],
        [(0, 300), (0, 600), (0, 15)],
    )
    ranges = list(zip(starts, ends, strict=True))
    together = step(cache, sequences, tables, ranges, window)
    for index, result in enumerate(together):
        alone = step(cache, [sequences[index]], [tables[index]], [ranges[index]], window)[0]
        assert torch.equal(result, alone)
        # Steps of one query split its segments into separate work, whatever the step above did.
        some = range(starts[index], ends[index], 57)
        for query in some:
            one = step(cache, [sequences[index]], [tables[index]], [(query, query + 1)], window)[0]
            assert torch.equal(result[query - starts[index]], one[0])


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_broken_sequence_does_not_affect_others(stored: torch.dtype, value: float) -> None:
    shape = SHAPES[1]
    good, bad = (random_sequence(40, shape, seed, torch.float32) for seed in (0, 1))
    bad = tuple(torch.full_like(part, value) for part in bad)  # type: ignore[assignment]
    cache = empty_cache(8, shape, stored)
    expected = step(empty_cache(8, shape, stored), [good], [range(3)], [(0, 40)])[0]
    found = step(cache, [bad, good], [range(3, 6), range(3)], [(0, 40), (0, 40)])[1]
    assert torch.equal(found, expected)
    assert all(part.isfinite().all() for part in cache)
    # A shorter sequence gets its pages: the old keys and values in them are masked.
    assert torch.equal(step(cache, [good], [range(3, 6)], [(0, 40)])[0], expected)


def test_a_replay_does_the_same_again_with_other_content() -> None:
    kernels = NativeKernels()
    x = rows(64, torch.float32, 3)
    weight, scale = kernels.pack(rows(64, torch.float32, 64, seed=1)), torch.rand(64)

    def run() -> Tensor:
        hidden = x
        for _ in range(5):
            hidden = kernels.linear(kernels.rms_norm(hidden, scale, 1e-5), weight, residual=hidden)
        return hidden

    first, replay = kernels.capture(run)
    assert replay is not None
    assert torch.equal(first, run())
    x.copy_(rows(64, torch.float32, 3, seed=9))
    replay()
    assert torch.equal(first, run())


def test_recorded_steps_that_share_buffers_may_be_replayed_in_turn() -> None:
    kernels, shared = NativeKernels(), BufferPool()
    weight, scale = kernels.pack(rows(64, torch.float32, 64, seed=1)), torch.rand(64)

    def step(count: int) -> tuple[Callable[[], Tensor], Callable[[], None] | None, Tensor]:
        x = rows(64, torch.float32, count)

        def run() -> Tensor:
            return kernels.linear(kernels.rms_norm(x, scale, 1e-5), weight, residual=x)

        result, replay = kernels.capture(run, shared)
        return run, replay, result

    steps = [step(count) for count in (3, 5, 4, 19)]
    for run, replay, result in (*steps, *steps[::-1]):
        assert replay is not None
        replay()
        assert torch.equal(result, run())
