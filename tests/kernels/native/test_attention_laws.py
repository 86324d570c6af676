"""Checks that no bit of native attention depends on cuts, mates, pages, threads or instruction sets.

This holds with every feature of a layer.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.models.layers.attention import PagedAttend, PagedSource, plan_layers
from tests.kernels.attention_features import Pages, layers_with, sequences
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.paged import QKV, Shape

pytestmark = built

LENGTHS = [600, 330, 90]
STORED = [torch.float32, torch.float16, torch.bfloat16, torch.int8]
SEEN: list[dict[str, Any]] = [
    {"window": window, "chunk": chunk} for window in (None, 40, 261) for chunk in (None, 23, 300)
]
OTHERS = [
    frozenset(itertools.compress(("softcap", "sinks", "bias", "widths", "grouped"), chosen))
    for chosen in itertools.product((False, True), repeat=5)
]


def whole(layer: AttentionLayer, run: QKV, stored: torch.dtype) -> Tensor:
    pages = Pages(NativeKernels(), [layer], 40, stored)
    (found,) = pages.step([run], [pages.table(len(run[0]))], [(0, len(run[0]))])
    return found


def in_parts(
    layer: AttentionLayer, runs: list[QKV], stored: torch.dtype, choose: random.Random
) -> list[Tensor]:
    """Runs the sequences together, each cut at random, in steps of random members and settings."""
    pages = Pages(NativeKernels(), [layer], 90, stored)
    tables = [pages.table(len(run[0])) for run in runs]
    done: list[list[Tensor]] = [[] for _ in runs]
    places = [0] * len(runs)
    while going := [row for row, run in enumerate(runs) if places[row] < len(run[0])]:
        chosen = choose.sample(going, choose.randint(1, len(going)))
        stops = [min(len(runs[r][0]), places[r] + choose.choice([1, 3, 8, 64, 100, 300])) for r in chosen]
        ranges = [(places[row], stop) for row, stop in zip(chosen, stops, strict=True)]
        with running(choose.choice(SETTINGS)):
            results = pages.step([runs[r] for r in chosen], [tables[r] for r in chosen], ranges)
        for row, stop, result in zip(chosen, stops, results, strict=True):
            done[row].append(result)
            places[row] = stop
    return [torch.cat(parts) for parts in done]


@pytest.mark.parametrize("seen", SEEN, ids=lambda s: f"{s['window']}-{s['chunk']}")
def test_a_query_has_the_same_bits_alone_and_together_in_chunks_and_whole(seen: dict[str, Any]) -> None:
    for seed, (others, stored) in enumerate(zip(OTHERS, itertools.cycle(STORED), strict=False)):
        shape, (layer,) = layers_with(others, **seen)
        runs = sequences(shape, LENGTHS)
        for found, run in zip(in_parts(layer, runs, stored, random.Random(seed)), runs, strict=True):
            assert torch.equal(found, whole(layer, run, stored)), (others, stored)


@pytest.mark.parametrize("seen", SEEN, ids=lambda s: f"{s['window']}-{s['chunk']}")
def test_a_sequence_that_sees_later_keys_has_the_same_bits_alone_and_together(seen: dict[str, Any]) -> None:
    lengths = [280, 90, 270]
    for seed, (others, stored) in enumerate(zip(OTHERS[1::2], itertools.cycle(STORED), strict=False)):
        shape, (layer,) = layers_with(others, **seen, causal=False)
        runs, pages = sequences(shape, lengths), Pages(NativeKernels(), [layer], 90, stored)
        with running(SETTINGS[seed % len(SETTINGS)]):
            together = pages.step(runs, [pages.table(n) for n in lengths], [(0, n) for n in lengths])
        for found, run in zip(together, runs, strict=True):
            assert torch.equal(found, whole(layer, run, stored)), (others, stored)


@dataclass(frozen=True)
class Sources:
    """Holds sequences whose keys and values are in pages, and runs queries of others over them."""

    layer: AttentionLayer
    runs: list[QKV]
    pages: Pages
    tables: list[list[int]]

    @classmethod
    def written(cls, layer: AttentionLayer, shape: Shape) -> Sources:
        runs, pages = sequences(shape, LENGTHS), Pages(NativeKernels(), [layer], 90, torch.float16)
        tables = [pages.table(length) for length in LENGTHS]
        pages.step(runs, tables, [(0, length) for length in LENGTHS])
        return cls(layer, runs, pages, tables)

    def cross(self, rows: list[int], counts: list[int], start: int) -> list[Tensor]:
        kernels, layer = self.pages.kernels, self.layer
        plans = plan_layers(
            kernels,
            [layer.kind],
            [self.tables[row] for row in rows],
            [start] * len(rows),
            counts,
            dtype=torch.float32,
            device="cpu",
            sources=[LENGTHS[row] for row in rows],
        )
        q = torch.cat([self.runs[row][0][start : start + n] for row, n in zip(rows, counts, strict=True)])
        own = KVShape(()).allocate(1, torch.float16)
        attend = PagedAttend(kernels, own, {}, PagedSource(self.pages.cache, plans))
        return list(attend.cross(layer, q).split(counts))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_query_across_sequences_has_the_same_bits_alone_and_together(setting: tuple[str, int]) -> None:
    for others in ({"widths"}, {"softcap", "sinks", "grouped"}):
        shape, (layer,) = layers_with(frozenset(others), causal=False)
        sources = Sources.written(layer, shape)
        expected = [sources.cross([row], [30], 0)[0] for row in range(3)]
        with running(setting):
            for rows, counts, start in (([0, 1, 2], [30, 30, 30], 0), ([2, 0], [1, 7], 3), ([1], [1], 29)):
                found = sources.cross(rows, counts, start)
                for row, count, result in zip(rows, counts, found, strict=True):
                    assert torch.equal(result, expected[row][start : start + count])
