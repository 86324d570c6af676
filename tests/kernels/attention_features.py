"""Lists the features of attention layers and their combinations, and runs layers over pages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.layers.attention import PagedAttend, plan_layers
from tests.kernels.paged import QKV, Shape, random_sequence

GROUPED, SINGLE = Shape(4, 2, 20), Shape(3, 3, 20)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features_of(heads: int) -> dict[str, Any]:
    """Returns a value of each feature, such that each changes the result for 60 tokens."""
    return {
        "window": 17,
        "chunk": 23,
        "softcap": 0.8,
        "sinks": numbers(heads, seed=3),
        "bias": RelativeBias(numbers(heads, 40, seed=4), 25),
    }


NAMES = [*features_of(1), "widths", "kv_source", "grouped"]
COMBINATIONS = [
    frozenset(itertools.compress(NAMES, chosen)) for chosen in itertools.product((False, True), repeat=8)
]


def layers_with(chosen: frozenset[str], **more: Any) -> tuple[Shape, list[AttentionLayer]]:
    """Returns layers of which the last has these features, and their shape.

    With "kv_source" there is a plain layer before it, whose keys and values it reads.
    """
    shape = GROUPED if "grouped" in chosen else SINGLE
    if "widths" in chosen:
        shape = replace(shape, v_dim=28)
    features = {name: value for name, value in features_of(shape.heads).items() if name in chosen}
    layer = shape.layer(**features, **more)
    if "kv_source" not in chosen:
        return shape, [layer]
    return shape, [shape.layer(**more), replace(layer, index=1, kv_source=0)]


def sequences(shape: Shape, lengths: Sequence[int], dtype: torch.dtype = torch.float32) -> list[QKV]:
    return [random_sequence(length, shape, 100 + seed, dtype) for seed, length in enumerate(lengths)]


class Pages:
    """Runs the steps of layers that get the same queries, over scattered pages."""

    def __init__(
        self, kernels: Kernels, layers: Sequence[AttentionLayer], count: int, dtype: torch.dtype
    ) -> None:
        self.kernels = kernels
        self.layers = layers
        self.cache = KVShape.of(layers).allocate(count, dtype, whole_pages=kernels.takes_page_strides())
        self.free = torch.randperm(count, generator=torch.Generator().manual_seed(count)).tolist()

    def table(self, length: int) -> list[int]:
        """Returns pages for a sequence of this length that no other table has."""
        return [self.free.pop() for _ in range(-(-length // 16))]

    @torch.inference_mode()
    def step(
        self,
        runs: Sequence[QKV],
        tables: Sequence[Sequence[int]],
        ranges: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """Runs all layers at positions `start .. stop - 1` of each sequence, and returns each sequence's
        results of the last layer.
        """
        q, k, v = (
            torch.cat([run[part][start:stop] for run, (start, stop) in zip(runs, ranges, strict=True)])
            for part in range(3)
        )
        starts, lengths = [start for start, _ in ranges], [stop - start for start, stop in ranges]
        kinds = [layer.kind for layer in self.layers]
        plans = plan_layers(self.kernels, kinds, tables, starts, lengths, dtype=q.dtype, device="cpu")
        attend = PagedAttend(self.kernels, self.cache, plans)
        for layer in self.layers:
            own = (k, v) if layer.kv_source is None else ()
            out = attend(layer, q, *own)
        return list(out.split(lengths))
