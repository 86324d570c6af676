"""Checks the cache of keys and values in both of its memory layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape, LayerKV, PagedCache
from decodery.kernels.native.native_kernels import NativeKernels
from tests.kernels.native.fixtures import built
from tests.kernels.paged import Shape, random_sequence, run_step

EQUAL = KVShape(tuple(LayerKV(index, 2, 20, 20) for index in range(3)))
UNEQUAL = KVShape((LayerKV(0, 2, 20, 12), LayerKV(2, 1, 40, 40), LayerKV(5, 2, 20, 12), LayerKV(6, 1, 40, 8)))
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8]
SHAPES = pytest.mark.parametrize("shape", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
ORDERS = pytest.mark.parametrize("whole_pages", [False, True])


def parts(cache: PagedCache) -> list[Tensor]:
    return [part for pair in cache.layers.values() for part in pair]


def numbered(cache: PagedCache) -> None:
    """Writes a different number, as far as the dtype can hold it, to each (page, layer, part)."""
    for number, part in enumerate(parts(cache)):
        for page, numbers in enumerate(part):
            numbers.fill_(page * 20 + number)


@pytest.mark.parametrize("dtype", DTYPES)
@SHAPES
@ORDERS
def test_a_cache_is_zeros_of_the_models_shape(shape: KVShape, whole_pages: bool, dtype: torch.dtype) -> None:
    cache, scale = shape.allocate(5, dtype, whole_pages=whole_pages), 4 if dtype == torch.int8 else 0
    assert cache.dtype == dtype
    assert list(cache.layers) == [kv.layer for kv in shape.layers]
    for kv in shape.layers:
        for part, width in zip(cache.layers[kv.layer], (kv.k_width, kv.v_width), strict=True):
            assert part.shape == (5, 16, kv.kv_heads, width + scale)
            assert part.dtype == dtype
            assert not part.any()
            assert part[0].is_contiguous()
            assert whole_pages or part.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES)
@SHAPES
def test_the_bytes_of_a_token_are_those_that_a_page_takes(shape: KVShape, dtype: torch.dtype) -> None:
    cache = shape.allocate(1, dtype)
    taken = sum(part.numel() for part in parts(cache)) * dtype.itemsize
    assert shape.bytes_per_token(dtype) * 16 == taken
    assert sum(block.numel() for block in cache.blocks) * dtype.itemsize == taken


@pytest.mark.parametrize("dtype", DTYPES)
@SHAPES
@ORDERS
def test_pages_layers_keys_and_values_share_no_memory(
    shape: KVShape, whole_pages: bool, dtype: torch.dtype
) -> None:
    cache = shape.allocate(5, dtype, whole_pages=whole_pages)
    numbered(cache)
    for number, part in enumerate(parts(cache)):
        for page in range(5):
            assert (part[page] == page * 20 + number).all()


def test_a_layer_that_reads_anothers_keys_and_values_caches_none() -> None:
    own = AttentionLayer(3, 4, 2, 20, 12, 1.0)
    assert KVShape.of([own, replace(own, index=4, kv_source=3)]) == KVShape((LayerKV(3, 2, 20, 12),))


def uniform(layers: int, kv_heads: int, width: int) -> KVShape:
    return KVShape(tuple(LayerKV(index, kv_heads, width, width) for index in range(layers)))


@pytest.mark.parametrize("shape", [EQUAL, UNEQUAL, uniform(30, 3, 64), uniform(4, 8, 128), uniform(1, 1, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_pages_lie_no_multiple_of_4096_bytes_apart(shape: KVShape, dtype: torch.dtype) -> None:
    cache = shape.allocate(2, dtype, whole_pages=True)
    assert {part.stride(0) * dtype.itemsize % 4096 for part in parts(cache)} == {33 * 64}


@SHAPES
@ORDERS
def test_a_copy_is_of_all_of_a_page_and_of_nothing_else(shape: KVShape, whole_pages: bool) -> None:
    cache = shape.allocate(5, torch.float16, whole_pages=whole_pages)
    numbered(cache)
    before = [part.clone() for part in parts(cache)]
    cache.copy(3, 1)
    for part, old in zip(parts(cache), before, strict=True):
        assert torch.equal(part, old[[0, 3, 2, 3, 4]])


@ORDERS
def test_a_page_of_layers_of_one_shape_is_one_block(whole_pages: bool) -> None:
    assert len(EQUAL.allocate(5, torch.float16, whole_pages=whole_pages).blocks) == 1
    blocks = UNEQUAL.allocate(5, torch.float16, whole_pages=whole_pages).blocks
    assert len(blocks) == (1 if whole_pages else 4)


@built
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_changes_no_bit_of_native_attention(dtype: torch.dtype) -> None:
    sequences = [random_sequence(40, Shape(4, 2, 20, 12), seed, torch.float32) for seed in range(2)]
    results = []
    for whole_pages in (False, True):
        cache = UNEQUAL.allocate(8, dtype, whole_pages=whole_pages)
        used, ranges = [[5, 0, 3], [7, 2, 6]], [(0, 40), (0, 40)]
        results.append(run_step(cache.layers[5], sequences, used, ranges, kernels=NativeKernels()))
        assert not any(part.any() for index in (0, 2, 6) for part in cache.layers[index])
        assert not any(part[[1, 4]].any() for part in cache.layers[5])
    assert torch.equal(torch.cat(results[0]), torch.cat(results[1]))
