"""Checks biases by relative position: those of T5 and ALiBi, and attention with them."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention

from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.kernels.native.library import available
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.layers.attention import DenseAttend, PagedAttend, plan_layers
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.paged import Shape, as_kept, empty_cache, plain_attention, random_sequence, run_step

REFERENCE: Kernels = torch_kernels
BACKENDS = [REFERENCE, *([NativeKernels()] if available() else [])]
LENGTH, PAGES = 300, 19
SHAPES = [Shape(6, 2, 16), Shape(4, 4, 12), Shape(4, 1, 40)]

backends = pytest.mark.parametrize(
    "kernels", BACKENDS, ids=lambda k: "native" if k is not REFERENCE else "reference"
)


def alibi(heads: int, length: int) -> RelativeBias:
    """Returns the slopes 2^(-8 / heads), its square and so on, times minus the distance, for a table as long
    as the text.
    """
    slopes = 2.0 ** (-8 / heads * torch.arange(1, heads + 1))
    return RelativeBias(slopes[:, None] * torch.arange(1.0 - length, 1), length - 1)


def short(heads: int) -> RelativeBias:
    """Returns numbers of any size for few distances, and for later keys, which no query sees here."""
    return RelativeBias(torch.randn(heads, 60, generator=torch.Generator().manual_seed(5)) * 3, 40)


BIASES = {"alibi": lambda heads: alibi(heads, LENGTH), "short": short}


@pytest.mark.parametrize("decoder", [False, True])
def test_a_table_with_ends_is_the_bias_of_t5(decoder: bool) -> None:
    config = T5Config(num_heads=3, d_model=12, d_kv=4, relative_attention_num_buckets=32, is_decoder=decoder)
    theirs = T5Attention(config, has_relative_attention_bias=True)
    reach = config.relative_attention_max_distance
    relative = torch.arange(-reach, 1 if decoder else reach + 1)
    bucket = theirs._relative_position_bucket(relative, bidirectional=not decoder)
    ours = RelativeBias(theirs.relative_attention_bias.weight[bucket].T, reach)
    positions = torch.arange(400)
    bucket = theirs._relative_position_bucket(positions - positions[:, None], bidirectional=not decoder)
    expected = theirs.relative_attention_bias.weight[bucket].permute(2, 0, 1)
    assert torch.equal(ours.scores(400), expected)


@backends
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize("window", [None, 100])
def test_a_bias_is_added_to_the_scores_over_pages(
    kernels: Kernels, shape: Shape, name: str, stored: torch.dtype, window: int | None
) -> None:
    sequence = random_sequence(LENGTH, shape, 0, torch.float32)
    layer, kept = shape.layer(bias=BIASES[name](shape.heads), window=window), as_kept(sequence, stored)
    exact = plain_attention(kept, torch.float64, layer)
    limit = 2 * (plain_attention(kept, torch.float32, layer) - exact).abs().max() + 5e-7
    cache = empty_cache(32, shape, stored)
    (found,) = run_step(cache, [sequence], [range(PAGES)], [(0, LENGTH)], layer, kernels)
    assert (found - exact).abs().max() <= limit


def in_parts(kernels: Kernels, shape: Shape, stored: torch.dtype, name: str, seed: int) -> Tensor:
    """Computes the same sequence in random steps over random pages beside another one."""
    choose = random.Random(seed)
    sequences = [random_sequence(LENGTH, shape, number, torch.float32) for number in (0, 1)]
    pages, cache = choose.sample(range(64), 2 * PAGES), empty_cache(64, shape, stored)
    tables = [pages[:PAGES], pages[PAGES:]]
    start, parts = 0, []
    while start < LENGTH:
        stop = min(LENGTH, start + choose.choice([1, 1, 3, 7, 8, 64, 100]))
        ranges = [(start, stop), (start, start + 1)]
        layer = shape.layer(bias=BIASES[name](shape.heads))
        found = run_step(cache, sequences, tables, ranges, layer, kernels)
        parts.append(found[0])
        start = stop
    return torch.cat(parts)


@backends
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("stored", [torch.float32, torch.int8])
def test_cuts_and_mates_change_no_bit_natively_and_only_rounding_on_torch(
    kernels: Kernels, shape: Shape, name: str, stored: torch.dtype
) -> None:
    sequence = random_sequence(LENGTH, shape, 0, torch.float32)
    cache, layer = empty_cache(32, shape, stored), shape.layer(bias=BIASES[name](shape.heads))
    (whole,) = run_step(cache, [sequence], [range(PAGES)], [(0, LENGTH)], layer, kernels)
    for seed in range(3):
        parts = in_parts(kernels, shape, stored, name, seed)
        if kernels is REFERENCE:
            torch.testing.assert_close(parts, whole, atol=3e-6, rtol=0)
        else:
            assert torch.equal(parts, whole)


@built
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("stored", [torch.float32, torch.int8])
def test_no_bit_depends_on_the_instruction_set_and_threads(name: str, stored: torch.dtype) -> None:
    found = []
    for setting in SETTINGS:
        with running(setting):
            found.append(in_parts(NativeKernels(), SHAPES[0], stored, name, 7))
    assert all(torch.equal(other, found[0]) for other in found)


@backends
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_paged_attention_with_a_bias_is_dense_attention_with_it(
    kernels: Kernels, name: str, dtype: torch.dtype
) -> None:
    shape, layer = SHAPES[0], SHAPES[0].layer(bias=BIASES[name](6))
    q, k, v = random_sequence(LENGTH, shape, 0, dtype)
    cache = KVShape.of([layer]).allocate(PAGES, kernels.cache_dtype(dtype))
    plans = plan_layers(kernels, [layer.kind], [range(PAGES)], [0], [LENGTH], dtype=dtype, device="cpu")
    paged = PagedAttend(kernels, cache, plans)(layer, q, k, v)
    dense = DenseAttend(kernels)(layer, q[None], k[None], v[None])[0]
    close = 3e-2 if dtype == torch.bfloat16 else 2e-3 if cache.dtype == torch.float16 else 1e-5
    torch.testing.assert_close(paged.float(), dense.float(), atol=close, rtol=0)


@built
def test_a_replay_keeps_the_bias() -> None:
    kernels, shape, layer = NativeKernels(), SHAPES[0], SHAPES[0].layer(bias=short(6))
    q, k, v = random_sequence(3, shape, 0, torch.float32)
    cache = empty_cache(1, shape, torch.float16)
    plan = kernels.plan_attention([[0]], [0], [3], kind=layer.kind, dtype=q.dtype, device="cpu")

    def run() -> Tensor:
        kernels.write_kv(*cache, plan, k, v)
        return kernels.paged_attention(q, *cache, plan, layer)

    found, replay = kernels.capture(run)
    assert replay is not None
    q.neg_()
    replay()
    assert torch.equal(found, run())
    assert not torch.equal(found, kernels.paged_attention(q, *cache, plan, shape.layer()))
