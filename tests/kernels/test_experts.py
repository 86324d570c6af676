"""Checks routing and mixtures of experts against their formulas, with gradients, on both backends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.errors import CaptureError
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import pack_experts
from decodery.kernels.quantise import quantise
from decodery.kernels.reference import torch_kernels
from decodery.kernels.routing import Routing
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.rows import rows

BACKENDS: list[Any] = [torch_kernels, *([NativeKernels()] if library.available() else [])]
backends = pytest.mark.parametrize("kernels", BACKENDS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@backends
def test_the_softmax_of_the_chosen_scores_is_the_chosen_softmax_over_its_sum(kernels: Any) -> None:
    scores = rows(11, torch.float32, 50)
    ids, weights = kernels.route(scores, Routing(3))
    best, order = scores.topk(3)
    assert torch.equal(ids, order)
    close(weights, best.softmax(-1))
    close(kernels.route(scores, Routing(3, renormalised=False))[1], scores.softmax(-1).gather(-1, ids))


@backends
def test_logistic_weights_follow_the_choice_and_are_multiplied_by_the_factor(kernels: Any) -> None:
    scores = rows(11, torch.float32, 50)
    ids, weights = kernels.route(scores, Routing(2, "sigmoid", renormalised=False, factor=2.5))
    assert torch.equal(ids, scores.topk(2).indices)
    close(weights, 2.5 * scores.sigmoid().gather(-1, ids))


@backends
def test_a_bias_chooses_and_does_not_weigh(kernels: Any) -> None:
    scores = torch.tensor([[0.0, 1.0, -1.0]])
    ids, weights = kernels.route(scores, Routing(1, "sigmoid", renormalised=False), torch.tensor([0, 0, 9.0]))
    assert ids.tolist() == [[2]]
    close(weights, scores.sigmoid()[:, 2:])


@backends
@pytest.mark.parametrize("best", [1, 2])
def test_experts_of_groups_that_are_left_out_are_never_chosen(kernels: Any, best: int) -> None:
    routing = Routing(3, "sigmoid", groups=4, kept_groups=2, best_of_group=best)
    scores = rows(16, torch.float32, 60) / 3
    # With -3 every value is negative: 0 in place of a left out one would win.
    for bias in (torch.zeros(16), torch.full((16,), -3.0)):
        ids, _ = kernels.route(scores, routing, bias)
        values = (scores.sigmoid() + bias).view(60, 4, 4)
        kept = values.topk(best, -1).values.sum(-1).topk(2, -1).indices
        hidden = torch.ones(60, 4, dtype=torch.bool).scatter(1, kept, False)
        expected = values.masked_fill(hidden[..., None], -math.inf).flatten(1).topk(3).indices
        assert torch.equal(ids, expected)


@backends
def test_of_equal_scores_the_first_wins(kernels: Any) -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0, 1.0], [0.0] * 6])
    assert kernels.route(scores, Routing(4))[0].tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    groups = Routing(2, groups=3, kept_groups=1)
    assert kernels.route(scores, groups)[0].tolist() == [[1, 0], [0, 1]]


@backends
def test_scores_that_are_not_finite_choose_experts_that_exist(kernels: Any) -> None:
    for value in (math.nan, math.inf, -math.inf):
        ids, _ = kernels.route(torch.full((2, 5), value), Routing(3))
        assert all(0 <= i < 5 for i in ids.flatten().tolist())
        assert all(len(set(row)) == 3 for row in ids.tolist())


def formula(
    x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor, name: str, weigh: str
) -> Tensor:
    """Computes a mixture one row and expert at a time."""
    out = []
    for row, chosen, factors in zip(x, ids.tolist(), weights, strict=True):
        total = torch.zeros_like(row)
        for e, factor in zip(chosen, factors, strict=True):
            inputs = row * factor if weigh == "input" else row
            found = down[e] @ torch_kernels.gated(gate_up[e] @ inputs, name)  # type: ignore[arg-type]
            total = total + (found if weigh == "input" else found * factor)
        out.append(total)
    return torch.stack(out)


@backends
@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "clamped_swiglu"])
@pytest.mark.parametrize("weigh", ["output", "input"])
def test_a_mixture_is_the_weighted_sum_of_its_experts(kernels: Any, name: str, weigh: str) -> None:
    x = rows(20, torch.float32, 13) / 3
    gate_up, down = rows(20, torch.float32, 6 * 30, seed=1) / 9, rows(15, torch.float32, 6 * 20, seed=2) / 9
    stacks = gate_up.view(6, 30, 20), down.view(6, 20, 15)
    ids, weights = kernels.route(rows(6, torch.float32, 13, seed=3), Routing(2))
    found = kernels.experts(x, *stacks, ids, weights, name, weigh=weigh, residual=x)
    wide = [part.double() for part in (x, *stacks)]
    expected = wide[0] + formula(*wide, ids, weights.double(), name, weigh)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_leading_dimensions_are_free() -> None:
    x, scores = rows(8, torch.float32, 12).view(3, 4, 8), rows(5, torch.float32, 12, seed=1).view(3, 4, 5)
    stacks = rows(8, torch.float32, 50, seed=2).view(5, 10, 8), rows(5, torch.float32, 40).view(5, 8, 5)
    ids, weights = torch_kernels.route(scores, Routing(2))
    assert ids.shape == weights.shape == (3, 4, 2)
    found = torch_kernels.experts(x, *stacks, ids, weights)
    flat = torch_kernels.experts(x.view(12, 8), *stacks, ids.view(12, 2), weights.view(12, 2))
    assert torch.equal(found.view(12, 8), flat)


@pytest.mark.parametrize("weigh", ["output", "input"])
def test_gradients_reach_inputs_experts_and_the_router(weigh: Any) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    tensors = draw(4, 6), draw(3, 10, 6), draw(3, 6, 5), draw(4, 3), draw(3, 10), draw(3, 6)

    def mixture(x: Tensor, gate_up: Tensor, down: Tensor, scores: Tensor, *biases: Tensor) -> Tensor:
        ids, weights = torch_kernels.route(scores, Routing(2, "sigmoid", factor=1.5))
        return torch_kernels.experts(
            x, gate_up, down, ids, weights, biases=(biases[0], biases[1]), weigh=weigh
        )

    assert torch.autograd.gradcheck(mixture, tensors)


@built
@pytest.mark.parametrize("form", ["int4", "int8", "bf16", "float32"])
def test_rows_together_have_the_bits_that_they_have_alone(form: str) -> None:
    kernels = NativeKernels()

    def packed(outs: int, ins: int, gated: bool) -> Any:
        each = rows(ins, torch.float32, 7 * outs, seed=outs).view(7, outs, ins) / 20
        return pack_experts([[quantise(matrix, form)] for matrix in each], gated=gated)

    stacks = packed(2 * 50, 96, True), packed(96, 50, False)
    # Enough rows for each tile, and for more than one pass over an expert's rows.
    x, scores = rows(96, torch.float32, 700), rows(7, torch.float32, 700, seed=5)
    scores[:, 2] += 5
    expected = kernels.experts(x, *stacks, *kernels.route(scores, Routing(2)), residual=x)
    for setting in SETTINGS:
        with running(setting):
            for count in (1, 2, 5, 17, 130, 700):
                part = slice(700 - count, 700)
                routed = kernels.route(scores[part], Routing(2))
                assert torch.equal(
                    kernels.experts(x[part], *stacks, *routed, residual=x[part]), expected[part]
                )


@built
def test_a_captured_mixture_follows_its_routing() -> None:
    kernels = NativeKernels()
    gate_up = pack_experts([[quantise(rows(32, torch.float32, 40, e), "int8")] for e in range(4)], gated=True)
    down = pack_experts([[quantise(rows(20, torch.float32, 32, e), "int8")] for e in range(4)])
    x, scores = rows(32, torch.float32, 9), rows(4, torch.float32, 9, seed=1)

    def run() -> Tensor:
        return kernels.experts(x, gate_up, down, *kernels.route(scores, Routing(2)))

    found, again = kernels.capture(run)
    for seed in (2, 3):
        scores.copy_(rows(4, torch.float32, 9, seed))
        again()
        assert torch.equal(found, run())
    scores.fill_(-1)  # All rows have one pair of experts.
    again()
    assert torch.equal(found, run())


@built
def test_an_expert_that_does_not_exist_adds_nothing() -> None:
    kernels = NativeKernels()
    stacks = rows(8, torch.float32, 30).view(3, 10, 8), rows(5, torch.float32, 24).view(3, 8, 5)
    x, weights = rows(8, torch.float32, 2), torch.ones(2, 2)
    found = kernels.experts(x, *stacks, torch.tensor([[1, 3], [-1, 2**40]]), weights)
    alone = kernels.experts(x[:1], *stacks, torch.tensor([[1]]), weights[:1, :1])
    assert torch.equal(found[0], alone[0])
    assert not found[1].any()


@built
def test_plain_experts_in_a_captured_step_are_an_error() -> None:
    kernels = NativeKernels()
    stacks = rows(8, torch.float32, 30).view(3, 10, 8), rows(5, torch.float32, 24).view(3, 8, 5)
    x, ids, weights = rows(8, torch.float32, 2), torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)
    with pytest.raises(CaptureError, match="packing plain weights"):
        kernels.capture(lambda: kernels.experts(x, *stacks, ids, weights))


def test_experts_of_several_formats_are_refused() -> None:
    if not library.available():
        pytest.skip("the native kernels are not built here")
    matrix = rows(32, torch.float32, 16)
    with pytest.raises(ValueError, match="several formats"):
        pack_experts([[quantise(matrix, "int8")], [quantise(matrix, "int4")]])
