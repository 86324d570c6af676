"""Checks that the torch kernels compute their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.kernels.reference import torch_kernels
from tests.kernels.paged import Shape, empty_cache, plain_attention, random_sequence, run_step

KERNELS: Kernels = torch_kernels


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.view_as_complex(torch.stack((x[..., :half], x[..., half:]), -1).contiguous())
    turned = turned * torch.polar(torch.ones_like(angles), angles)[..., None, :]
    return torch.cat((turned.real, turned.imag), -1)


def turned(angles: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def with_residual(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    return norm(x, weight) + residual


def centred(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def inner(x: Tensor, weight: Tensor) -> Tensor:
    return norm(x[:, 1:], weight)


def gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return first * first.sigmoid() * second


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = [plain_attention(parts, q.dtype) for parts in zip(q, k, v, strict=True)]
    return torch.stack(rows)


X, ANGLES = randn(5, 3, 34), randn(5, 3, 17, seed=1) * 100
Q, K, V = randn(2, 37, 6, 20), randn(2, 37, 3, 20, seed=1), randn(2, 37, 3, 20, seed=2)
NORMED = (X, randn(34), randn(5, 3, 34, seed=2))
HEADS = randn(5, 3, 7, 34)
IDS = torch.arange(15).view(5, 3) % 7

# Kernels and their formulas; both get the arguments, the formula in float64 and in float32.
CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "linear": (
        KERNELS.linear,
        lambda x, w, b: torch.einsum("...i,oi->...o", x, w) + b,
        (X, randn(51, 34), randn(51)),
    ),
    "rms_norm": (lambda x, w: KERNELS.rms_norm(x, w, 1e-5), norm, (X, randn(34))),
    "rotary": (lambda x, a: KERNELS.rotary(x, *turned(a)), rotate, (HEADS, ANGLES)),
    "rms_norm with residual": (lambda x, w, r: KERNELS.rms_norm(x, w, 1e-5, r), with_residual, NORMED),
    "layer_norm": (lambda x, w, b: KERNELS.layer_norm(x, w, b, 1e-5), centred, (X, randn(34), randn(34))),
    "layer_norm with residual": (
        lambda x, w, r: KERNELS.layer_norm(x, w, None, 1e-5, r),
        lambda x, w, r: centred(x, w, 0 * w) + r,
        NORMED,
    ),
    "rms_norm of some heads": (lambda x, w: KERNELS.rms_norm(x[:, 1:], w, 1e-5), inner, (X, randn(34))),
    "embedding": (
        lambda w, r: KERNELS.embedding(IDS, w, 1.7, r),
        lambda w, r: w[IDS] * 1.7 + r,
        (randn(7, 34), randn(5, 3, 34, seed=1)),
    ),
    "gated": (KERNELS.gated, gate, (X * 5,)),
    "gated by large gates": (KERNELS.gated, gate, (X * 100,)),
    "attention": (lambda q, k, v: KERNELS.attention(q, k, v, None, 1 / math.sqrt(20)), attend, (Q, K, V)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_at_most_twice_that_of_the_plain_formula(name: str) -> None:
    kernel, formula, arguments = CASES[name]
    exact = formula(*(argument.double() for argument in arguments))
    plain = (formula(*arguments).double() - exact).abs().max()
    error = (kernel(*arguments).double() - exact).abs().max()
    assert error <= 2 * plain
    assert kernel(*arguments).dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_rounded_about_as_often_as_needed(name: str) -> None:
    kernel, formula, arguments = CASES[name]
    rounded = [argument if argument is ANGLES else argument.bfloat16() for argument in arguments]
    exact = formula(*(argument.double() for argument in rounded))
    result = kernel(*rounded)
    assert result.dtype == torch.bfloat16
    assert (result.double() - exact).abs().max() <= 0.01 * exact.abs().max()


def test_an_embedding_is_the_named_row() -> None:
    weight = randn(11, 4)
    ids = torch.tensor([[3, 10], [0, 3]])
    assert torch.equal(KERNELS.embedding(ids, weight), weight[ids])


def test_a_mask_is_added_to_the_scores() -> None:
    mask = randn(1, 1, 37, 37)
    keys, values = (part.repeat_interleave(2, 2) for part in (K, V))
    weights = (torch.einsum("bqhd,bkhd->bhqk", Q, keys) * 0.3 + mask).softmax(-1)
    expected = torch.einsum("bhqk,bkhd->bqhd", weights, values).flatten(2)
    torch.testing.assert_close(KERNELS.attention(Q, K, V, mask, 0.3), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["linear", "rms_norm", "layer_norm", "rotary", "gated", "attention"])
def test_gradients_are_those_of_the_formula(name: str) -> None:
    kernel, formula, arguments = CASES[name]
    found, expected = gradients(kernel, arguments), gradients(formula, arguments)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def gradients(function: Callable[..., Tensor], arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [argument.clone().requires_grad_() for argument in arguments]
    result = function(*leaves)
    return torch.autograd.grad((result * randn(*result.shape, seed=3)).sum(), leaves)


SHAPES = [Shape(6, 2, 16), Shape(4, 4, 12), Shape(4, 1, 8), Shape(9, 3, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_paged_attention_is_plain_attention_over_the_pages(shape: Shape) -> None:
    sequences = [random_sequence(length, shape, length, torch.float32) for length in (1, 15, 33, 150, 70, 64)]
    tables = [[7], [2], [9, 3, 5], [*range(20, 30)], [40, 39, 38, 37, 36], [41, 42, 43, 44]]
    results = run_step(
        empty_cache(50, shape, torch.float32), sequences, tables, [(0, len(q)) for q, _, _ in sequences]
    )
    for sequence, result in zip(sequences, results, strict=True):
        exact = plain_attention(sequence, torch.float64)
        plain = (plain_attention(sequence, torch.float32).double() - exact).abs().max()
        assert (result.double() - exact).abs().max() <= 2 * plain + 1e-7


def test_a_sliding_window_hides_older_keys() -> None:
    shape = Shape()
    sequence = random_sequence(100, shape, 0, torch.float32)
    cache, layer = empty_cache(8, shape, torch.float32), shape.layer(window=10)
    (first,) = run_step(cache, [sequence], [range(7)], [(0, 60)], layer)
    (second,) = run_step(cache, [sequence], [range(7)], [(60, 100)], layer)
    expected = plain_attention(sequence, torch.float32, layer)
    torch.testing.assert_close(torch.cat((first, second)), expected, atol=1e-5, rtol=0)


def test_keys_and_values_are_written_to_their_slots_alone() -> None:
    shape = Shape(heads=2, kv_heads=2, dim=3)
    cache_k, cache_v = empty_cache(4, shape, torch.float32)
    k, v = randn(2, 2, 3), randn(2, 2, 3, seed=1)
    plan = torch_kernels.plan_attention(
        [[0, 1, 2], [0]], [33, 5], [1, 1], kind=shape.layer().kind, dtype=torch.float32, device="cpu"
    )
    torch_kernels.write_kv(cache_k, cache_v, plan, k, v)
    assert torch.equal(cache_k[2, 1], k[0])
    assert torch.equal(cache_v[0, 5], v[1])
    cache_k[2, 1], cache_k[0, 5] = 0, 0
    assert not cache_k.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_broken_sequence_does_not_affect_others(value: float) -> None:
    shape = Shape()
    sound = random_sequence(20, shape, 1, torch.float32)
    (expected,) = run_step(empty_cache(6, shape, torch.float32), [sound], [[1, 2]], [(0, 20)])
    q, k, v = (torch.full_like(part, value) for part in random_sequence(32, shape, 0, torch.float32))
    cache = empty_cache(6, shape, torch.float32)
    # The sound sequence reuses pages of the broken one, and shares a step with it.
    run_step(cache, [(q, k, v)], [[1, 2]], [(0, 32)])
    _, result = run_step(cache, [(q, k, v), sound], [[3, 4], [1, 2]], [(0, 30), (0, 20)])
    assert torch.equal(result, expected)


def test_rows_of_one_length_class_share_a_call() -> None:
    plan = torch_kernels.plan_attention(
        [[i * 8 + page for page in range(6)] for i in range(8)],
        [65, 70, 80, 95, 66, 77, 88, 90],
        [1] * 8,
        kind=Shape(9, 3).layer().kind,
        dtype=torch.bfloat16,
        device="cpu",
    )
    assert [group.batch for group in plan.groups] == [8]


def test_a_long_row_does_not_lengthen_the_short_ones() -> None:
    plan = torch_kernels.plan_attention(
        [range(10), range(10, 200)],
        [100, 3000],
        [1, 1],
        kind=Shape(4, 2).layer().kind,
        dtype=torch.float32,
        device="cpu",
    )
    assert sorted(group.keys for group in plan.groups) == [128, 3072]
