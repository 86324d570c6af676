"""The cache of keys and values in both of its orders in memory."""

from __future__ import annotations

import pytest
import torch

from decodery.kernels.cache import KVShape, PagedCache
from decodery.kernels.native.native_kernels import NativeKernels
from tests.kernels.native.fixtures import built
from tests.kernels.paged import Shape, random_sequence, run_step

SHAPE = KVShape(layers=3, kv_heads=2, head_dim=20)
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8]
WIDTHS = {torch.int8: 24}
ORDERS = pytest.mark.parametrize("whole_pages", [False, True])


def numbered(cache: PagedCache) -> None:
    """A number of its own, as far as the dtype goes, for each (page, layer, part)."""
    pages, layers = cache.pages.shape[:2]
    numbers = torch.arange(pages * layers * 2).view(pages, layers, 2, 1, 1, 1)
    cache.pages.copy_(numbers.to(cache.pages.dtype).expand_as(cache.pages))


@pytest.mark.parametrize("dtype", DTYPES)
@ORDERS
def test_a_cache_is_zeros_of_the_models_shape(whole_pages: bool, dtype: torch.dtype) -> None:
    cache = SHAPE.allocate(5, dtype, whole_pages=whole_pages)
    for part in (cache.keys, cache.values):
        assert part.shape == (3, 5, 16, 2, WIDTHS.get(dtype, 20))
        assert part.dtype == dtype
        assert not part.any()
        assert all(layer[0].is_contiguous() for layer in part)


@pytest.mark.parametrize("dtype", DTYPES)
@ORDERS
def test_pages_layers_keys_and_values_share_no_memory(whole_pages: bool, dtype: torch.dtype) -> None:
    cache = SHAPE.allocate(5, dtype, whole_pages=whole_pages)
    numbered(cache)
    for page in range(5):
        for layer in range(3):
            assert (cache.keys[layer, page] == page * 6 + layer * 2).all()
            assert (cache.values[layer, page] == page * 6 + layer * 2 + 1).all()


@pytest.mark.parametrize("shape", [SHAPE, KVShape(30, 3, 64), KVShape(4, 8, 128), KVShape(1, 1, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_pages_lie_no_multiple_of_4096_bytes_apart(shape: KVShape, dtype: torch.dtype) -> None:
    keys = shape.allocate(2, dtype, whole_pages=True).keys
    assert keys.stride(1) * dtype.itemsize % 4096 == 33 * 64


@ORDERS
def test_a_copy_is_of_all_of_a_page_and_of_nothing_else(whole_pages: bool) -> None:
    cache = SHAPE.allocate(5, torch.float16, whole_pages=whole_pages)
    numbered(cache)
    before = cache.pages.clone()
    cache.copy(3, 1)
    assert torch.equal(cache.pages, before[[0, 3, 2, 3, 4]])


@built
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_changes_no_bit_of_native_attention(dtype: torch.dtype) -> None:
    sequences = [random_sequence(40, Shape(4, 2, 20), seed, torch.float32) for seed in range(2)]
    results = []
    for whole_pages in (False, True):
        cache = SHAPE.allocate(8, dtype, whole_pages=whole_pages)
        part = cache.keys[1], cache.values[1]
        results.append(
            run_step(part, sequences, [[5, 0, 3], [7, 2, 6]], [(0, 40), (0, 40)], kernels=NativeKernels())
        )
        assert not cache.pages[:, [0, 2]].any()
        assert not cache.pages[[1, 4]].any()
    assert torch.equal(torch.cat(results[0]), torch.cat(results[1]))
