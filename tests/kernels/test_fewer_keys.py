"""Tests attention of sequences whose queries see the first keys alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias
from tests.kernels.native.fixtures import built, running
from tests.kernels.paged import QKV, Shape, empty_cache, plain_attention, random_sequence

BACKENDS = ["torch", *(library.instruction_sets() if library.available() else ())]
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 20},
    "bias": {"bias": RelativeBias(torch.randn(6, 65, generator=torch.Generator().manual_seed(1)), 32)},
    "softcap": {"softcap": 2.0},
    "causal": {"causal": True},
}
# The rows of each sequence, and how many keys they see: none less, within a page, and over a segment.
SIZES = [(9, 9), (32, 17), (20, 3), (300, 290), (290, 272), (33, 16)]


def attend(kernels: Kernels, sequences: list[QKV], keys: list[int] | None, **features: Any) -> list[Tensor]:
    """Returns the attention of whole sequences in one step, each over its first `keys`."""
    shape = Shape()
    layer = shape.layer(**{"causal": False, **features})
    lengths = [len(q) for q, _, _ in sequences]
    tables, pages = [], 0
    for length in lengths:
        count = -(-length // 16)
        tables.append(range(pages, pages + count))
        pages += count
    cache = empty_cache(pages, shape, torch.float32)
    plan = kernels.plan_attention(
        tables, [0] * len(lengths), lengths, kind=layer.kind, dtype=torch.float32, device="cpu", keys=keys
    )
    q, k, v = (torch.cat([sequence[part] for sequence in sequences]) for part in range(3))
    kernels.write_kv(*cache, plan, k, v)
    return list(kernels.paged_attention(q, *cache, plan, layer).split(lengths))


def some_sequences() -> list[QKV]:
    return [random_sequence(rows, Shape(), seed, torch.float32) for seed, (rows, _) in enumerate(SIZES)]


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_see_the_first_keys_alone(backend: str, name: str) -> None:
    sequences, keys = some_sequences(), [seen for _, seen in SIZES]
    kernels: Kernels = torch_kernels if backend == "torch" else NativeKernels()
    with nullcontext() if backend == "torch" else running((backend, 2)):
        found = attend(kernels, sequences, keys, **FEATURES[name])
    layer = Shape().layer(**{"causal": False, **FEATURES[name]})
    for sequence, seen, one in zip(sequences, keys, found, strict=True):
        expected = plain_attention(sequence, torch.float64, layer, seen)
        assert (one - expected).abs().max() <= 1e-5


@built
def test_hidden_keys_change_no_bit_of_the_queries_before_them() -> None:
    sequences, keys = some_sequences(), [seen for _, seen in SIZES]
    found = attend(NativeKernels(), sequences, keys)
    shorter = [(q[:seen], k[:seen], v[:seen]) for (q, k, v), seen in zip(sequences, keys, strict=True)]
    for one, alone, seen in zip(found, shorter, keys, strict=True):
        assert torch.equal(one[:seen], attend(NativeKernels(), [alone], None)[0])
