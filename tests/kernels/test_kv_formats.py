"""Checks the stored forms of keys and values in a cache."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from decodery.kernels import PAGE_SIZE
from decodery.kernels.kv_formats import restored, stored, stored_width
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.paged import Shape, empty_cache, plain_attention, random_sequence, run_step

X = (
    torch.randn(50, 3, 24, generator=torch.Generator().manual_seed(0))
    * torch.logspace(-35, 35, 50)[:, None, None]
)


def test_int8_loses_at_most_half_a_step_of_the_largest() -> None:
    found = restored(stored(X, torch.int8), torch.float32)
    largest = X.abs().amax(-1, keepdim=True)
    assert ((found - X).abs() <= largest * (0.5 + 1e-5) / 127 + 1e-30).all()
    assert stored(X, torch.int8).shape == (50, 3, stored_width(24, torch.int8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_to_the_nearest(dtype: torch.dtype) -> None:
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(1)) * 100
    assert torch.equal(stored(x, dtype), x.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.4e38, -1e38, 1e-40])
def test_what_is_kept_is_always_finite(dtype: torch.dtype, value: float) -> None:
    x = torch.ones(2, 8)
    x[0, 3] = value
    found = restored(stored(x, dtype), torch.float32)
    assert found.isfinite().all()
    assert torch.equal(found[1], restored(stored(x[1:], dtype), torch.float32)[0])
    if not math.isfinite(value):
        assert torch.equal(found[0], restored(stored(x.nan_to_num(0, 0, 0)[:1], dtype), torch.float32)[0])


@built
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_the_native_pages_hold_what_the_reference_keeps(setting: tuple[str, int], dtype: torch.dtype) -> None:
    shape = Shape(3, 3, 24)
    caches = [empty_cache(4, shape, dtype) for _ in range(2)]
    x = X.nan_to_num().clone()
    x[3, 1, 5], x[4, 2, 6], x[5, 0] = math.nan, -math.inf, 0
    with running(setting):
        for kernels, cache in zip((NativeKernels(), torch_kernels), caches, strict=True):
            kind = shape.layer().kind
            plan = kernels.plan_attention([range(4)], [2], [50], kind=kind, dtype=x.dtype, device="cpu")
            kernels.write_kv(*cache, plan, x, x.flip(0))
    size = PAGE_SIZE * stored_width(24, dtype)
    for part, (mine, theirs) in enumerate(zip(*caches, strict=True)):
        for page, head in itertools.product(range(4), range(3)):
            flat = mine[page].flatten()[head * size : (head + 1) * size]
            codes = flat[: PAGE_SIZE * 24]
            codes = codes.view(24, PAGE_SIZE).T if part == 0 else codes.view(PAGE_SIZE, 24)
            assert torch.equal(codes, theirs[page, :, head, :24])
            assert torch.equal(flat[PAGE_SIZE * 24 :].view(PAGE_SIZE, -1), theirs[page, :, head, 24:])


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float16, 3e-4), (torch.bfloat16, 3e-3), (torch.int8, 0.01)]
)
def test_attention_over_a_smaller_cache_is_close_to_the_exact_one(dtype: torch.dtype, most: float) -> None:
    shape = Shape(9, 3, 64)
    sequence = random_sequence(300, shape, 0, torch.float32)
    exact = plain_attention(sequence, torch.float64)
    (found,) = run_step(empty_cache(19, shape, dtype), [sequence], [range(19)], [(0, 300)])
    assert ((found - exact).norm() / exact.norm()).item() < most
