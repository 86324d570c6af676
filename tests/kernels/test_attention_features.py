"""Compares every combination of an attention layer's features with its formula, dense and over pages."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.layers.attention import DenseAttend, DenseSource, PagedAttend, PagedSource, plan_layers
from tests.kernels.attention_features import (
    COMBINATIONS,
    NAMES,
    Pages,
    layers_with,
    numbers,
    sequences,
)
from tests.kernels.native.fixtures import built, running
from tests.kernels.paged import QKV, REFERENCE, Shape, as_kept, plain_attention

BACKENDS = ["torch", *(library.instruction_sets() if library.available() else ())]
LENGTH = 60
backends = pytest.mark.parametrize("backend", BACKENDS)


def dense(
    layers: list[AttentionLayer], q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None
) -> Tensor:
    """Runs all layers on sequences [B, S, ...] and returns the last one's result."""
    attend = DenseAttend(torch_kernels, keep, layers=layers)
    for layer in layers:
        own = (k, v) if layer.kv_source is None else ()
        out = attend(layer, q, *own)
    return out


@pytest.mark.parametrize("causal", [True, False])
def test_dense_attention_is_the_formula(causal: bool) -> None:
    for chosen in COMBINATIONS:
        shape, layers = layers_with(chosen, causal=causal)
        (sequence,) = sequences(shape, [LENGTH], torch.float64)
        found = dense(layers, *(part[None] for part in sequence))[0]
        expected = plain_attention(sequence, torch.float64, layers[-1])
        assert (found - expected).abs().max() <= 1e-10, chosen


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("kv_source", "grouped")])
@pytest.mark.parametrize("causal", [True, False])
def test_each_feature_changes_the_formula(name: str, causal: bool) -> None:
    shape, (layer,) = layers_with(frozenset({name}), causal=causal)
    (sequence,) = sequences(shape, [LENGTH], torch.float64)
    plain, other = (
        Shape(shape.heads, shape.kv_heads, shape.dim),
        plain_attention(sequence, torch.float64, layer),
    )
    (same,) = sequences(plain, [LENGTH], torch.float64)
    without = plain_attention(same, torch.float64, plain.layer(causal=causal))
    assert other.shape != without.shape or (other - without).abs().max() > 0.01


@pytest.mark.parametrize("causal", [True, False])
def test_padding_on_either_side_changes_nothing(causal: bool) -> None:
    places = [slice(0, 40), slice(LENGTH - 33, LENGTH), slice(0, LENGTH)]
    keep = torch.zeros(3, LENGTH, dtype=torch.bool)
    for row, place in enumerate(places):
        keep[row, place] = True
    for chosen in COMBINATIONS:
        shape, layers = layers_with(chosen, causal=causal)
        runs = sequences(shape, [40, 33, LENGTH], torch.float64)
        padded = [torch.full((3, LENGTH, *part.shape[1:]), 7.0, dtype=part.dtype) for part in runs[0]]
        for row, (run, place) in enumerate(zip(runs, places, strict=True)):
            for part, values in zip(padded, run, strict=True):
                part[row, place] = values
        found = dense(layers, *padded, keep=keep)
        assert found.isfinite().all()
        for row, (run, place) in enumerate(zip(runs, places, strict=True)):
            expected = plain_attention(run, torch.float64, layers[-1])
            assert (found[row, place] - expected).abs().max() <= 1e-10, chosen


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_dense_attention_are_those_of_finite_differences(causal: bool) -> None:
    small = Shape(4, 2, 3, 2)
    features = {"window": 3, "chunk": 5, "softcap": 0.8, "causal": causal}
    parts = [part[None].requires_grad_() for part in sequences(small, [7], torch.float64)[0]]
    sinks, table = (numbers(*size, seed=5).double().requires_grad_() for size in ((4,), (4, 6)))

    def run(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, table: Tensor) -> Tensor:
        layer = small.layer(**features, sinks=sinks, bias=RelativeBias(table, 3))
        return DenseAttend(torch_kernels)(layer, q, k, v)

    assert torch.autograd.gradcheck(run, (*parts, sinks, table))


def kernels_of(backend: str) -> Kernels:
    return REFERENCE if backend == "torch" else NativeKernels()


def using(backend: str) -> AbstractContextManager[None]:
    """Selects the instruction set inside the context, unless the backend is torch."""
    return nullcontext() if backend == "torch" else running((backend, 1))


def assert_close_to_exact(
    found: Tensor, sequence: QKV, layer: AttentionLayer, rounding: float = 5e-7
) -> None:
    """Asserts an error of at most twice that of the formula in float32, and `rounding`."""
    exact = plain_attention(sequence, torch.float64, layer)
    plain = (plain_attention(sequence, torch.float32, layer) - exact).abs().max()
    assert (found - exact).abs().max() <= 2 * plain + rounding, layer


@backends
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_attention_over_pages_is_the_formula(stored: torch.dtype, backend: str) -> None:
    # Pairs of features and all together show what a stored form changes.
    few = [chosen for chosen in COMBINATIONS if len(chosen) in (0, 1, 2, len(NAMES))]
    for chosen in COMBINATIONS if stored == torch.float32 else few:
        shape, layers = layers_with(chosen)
        runs, pages = sequences(shape, [LENGTH, 21]), Pages(kernels_of(backend), layers, 9, stored)
        tables = [pages.table(LENGTH), pages.table(21)]
        with using(backend):
            steps = [pages.step(runs, tables, cut) for cut in ([(0, 40), (0, 20)], [(40, 59), (20, 21)])]
            steps.append(pages.step(runs[:1], tables[:1], [(59, 60)]))
        for row, run in enumerate(runs):
            found = torch.cat([step[row] for step in steps if row < len(step)])
            assert_close_to_exact(found, as_kept(run, stored), layers[-1])


@backends
def test_attention_to_later_keys_over_pages_is_the_formula(backend: str) -> None:
    for chosen in COMBINATIONS:
        if "kv_source" in chosen:
            continue
        shape, layers = layers_with(chosen, causal=False)
        runs, pages = sequences(shape, [LENGTH, 290]), Pages(kernels_of(backend), layers, 40, torch.float32)
        tables = [pages.table(len(run[0])) for run in runs]
        with using(backend):
            found = pages.step(runs, tables, [(0, LENGTH), (0, 290)])
        for result, run in zip(found, runs, strict=True):
            assert_close_to_exact(result, run, layers[-1])


@backends
@pytest.mark.parametrize(
    "kind", [{}, {"window": 100}, {"chunk": 300}, {"window": 270, "chunk": 300}], ids=str
)
@pytest.mark.parametrize("name", ["softcap", "sinks", "bias", "widths"])
def test_many_keys_are_summed_right(kind: dict[str, Any], name: str, backend: str) -> None:
    shape, (layer,) = layers_with(frozenset({name, "grouped"}), **kind)
    (run,) = sequences(shape, [800])
    pages = Pages(kernels_of(backend), [layer], 60, torch.float32)
    table = pages.table(800)
    with using(backend):
        parts = [pages.step([run], [table], [cut])[0] for cut in ((0, 350), (350, 799), (799, 800))]
    assert_close_to_exact(torch.cat(parts), run, layer)


@pytest.mark.parametrize("value", [-1e4, -60.0, 60.0, 1e4])
@backends
def test_a_sink_of_any_size_leaves_finite_weights(value: float, backend: str) -> None:
    shape = Shape(4, 2, 20)
    layer = shape.layer(sinks=torch.tensor([value, 0.0, value, -torch.inf]))
    (run,) = sequences(shape, [300])
    pages = Pages(kernels_of(backend), [layer], 20, torch.float32)
    with using(backend):
        (found,) = pages.step([run], [pages.table(300)], [(0, 300)])
    assert_close_to_exact(found, run, layer)


@built
@pytest.mark.parametrize("cap", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_small_and_large_scores_are_capped_right(cap: float, backend: str) -> None:
    shape = Shape(2, 2, 16)
    layer = shape.layer(scale=3.0, softcap=cap)
    (run,) = sequences(shape, [64])
    run = run[0] * torch.logspace(-4, 2, 64)[:, None, None], *run[1:]
    pages = Pages(NativeKernels(), [layer], 4, torch.float32)
    with using(backend):
        (found,) = pages.step([run], [pages.table(64)], [(0, 64)])
    assert_close_to_exact(found, run, layer)


CROSS = [frozenset(), frozenset({"softcap"}), frozenset({"sinks", "widths"}), frozenset({"grouped"})]


@backends
@pytest.mark.parametrize("chosen", CROSS, ids=lambda c: "+".join(sorted(c)) or "plain")
def test_attention_across_sequences_is_the_formula_and_the_same_dense_and_paged(
    chosen: frozenset[str], backend: str
) -> None:
    kernels = kernels_of(backend)
    shape, (layer,) = layers_with(chosen, causal=False)
    sources, counts = [70, 5, 300], [9, 1, 3]
    runs = sequences(shape, sources)
    pages = Pages(kernels, [layer], 40, torch.float32)
    tables = [pages.table(length) for length in sources]
    with using(backend):
        pages.step(runs, tables, [(0, length) for length in sources])
        plans = plan_layers(
            kernels,
            [layer.kind],
            tables,
            [4, 90, 0],
            counts,
            dtype=torch.float32,
            device="cpu",
            sources=sources,
        )
        attend = PagedAttend(
            kernels, KVShape(()).allocate(1, torch.float32), {}, PagedSource(pages.cache, plans)
        )
        queries = [run[0][:count] for run, count in zip(runs, counts, strict=True)]
        found = attend.cross(layer, torch.cat(queries)).split(counts)
    keep = torch.zeros(3, max(sources), dtype=torch.bool)
    k, v = (torch.full((3, max(sources), *part.shape[1:]), 7.0) for part in runs[0][1:])
    for row, run in enumerate(runs):
        keep[row, : sources[row]] = True
        k[row, : sources[row]], v[row, : sources[row]] = run[1:]
    for row, (q, run) in enumerate(zip(queries, runs, strict=True)):
        assert_close_to_exact(found[row], (q, *run[1:]), layer)
        whole = DenseAttend(torch_kernels, source=DenseSource({0: (k, v)}, keep)).cross(
            layer, q.expand(3, *q.shape)
        )
        assert_close_to_exact(whole[row], (q, *run[1:]), layer)
        alone = DenseAttend(torch_kernels, source=DenseSource({0: (run[1][None], run[2][None])}))
        assert_close_to_exact(alone.cross(layer, q[None])[0], (q, *run[1:]), layer)


@pytest.mark.parametrize(("features", "most"), [({"window": 100}, 256), ({"chunk": 512}, 512)])
def test_a_plan_on_torch_reads_no_pages_that_no_query_sees(features: dict[str, int], most: int) -> None:
    kind = Shape().layer(**features).kind
    table = torch.arange(400).tolist()
    for start, length in ((5000, 1), (5000, 17), (6143, 1)):
        plan = torch_kernels.plan_attention(
            [table], [start], [length], kind=kind, dtype=torch.float32, device="cpu"
        )
        for group in plan.groups:
            assert group.keys <= most
            first = int(group.first_keys.min())
            assert first >= kind.first_key(start) // 16 * 16
            assert int(group.pages[0]) == first // 16


@built
@pytest.mark.parametrize("features", [{"window": 100}, {"chunk": 256}, {"window": 50, "causal": False}])
@pytest.mark.parametrize("start", [0, 255, 5000, 5119, 6143])
def test_a_native_plan_skips_segments_that_no_query_sees(features: dict[str, Any], start: int) -> None:
    end = 6400 if "causal" in features else start + 1
    plan = NativeKernels().plan_attention(
        [range(400)],
        [start],
        [end - start],
        kind=Shape().layer(**features).kind,
        dtype=torch.float32,
        device="cpu",
    )
    work = torch.frombuffer(plan.kept[2], dtype=torch.int32).view(-1, 9)[: plan.words[4]]
    assert int(work[:, 5].max()) <= 2  # The segments of a block of queries.


def test_layers_of_one_kind_share_a_plan() -> None:
    layer = Shape().layer(window=5)
    kinds = [layer.kind, replace(layer, index=1, softcap=3.0).kind, replace(layer, window=None).kind]
    plans = plan_layers(REFERENCE, kinds, [[0]], [0], [3], dtype=torch.float32, device="cpu")
    assert list(plans) == [kinds[0], kinds[2]]
