"""Holds calls of the kernels of mixtures of experts, with their formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from decodery.kernels.contract import GatedActivation
from decodery.kernels.packed_weights import Codes, Format, pack_experts
from decodery.kernels.reference import torch_kernels
from decodery.kernels.routing import Routing
from tests.kernels.cases import ROWS, Case, dequantised, random_codes, rounded
from tests.kernels.rows import rows

EXPERTS = 5
ROUTINGS = {
    "among near scores": Routing(3, within=0.2),
    "softmax": Routing(3, renormalised=False),
    "renormalised": Routing(4, factor=1.5),
    "sigmoid": Routing(1, "sigmoid", renormalised=False),
    "groups by their largest": Routing(2, renormalised=False, groups=3, kept_groups=2),
    "groups by sums": Routing(4, "sigmoid", factor=2.5, groups=6, kept_groups=3, best_of_group=2),
}


def experts_cases() -> Iterator[Case]:
    for name, routing in ROUTINGS.items():
        for experts in (12, 18, 48):
            yield routed(name, routing, experts)
    forms = list(Format)
    for first, second in zip(forms, forms[3:] + forms[:3], strict=True):
        for width, inner in ((1, 1), (33, 5), (100, 70)):
            yield mixture(first, second, width, inner)
    yield mixture(Format.INT8, Format.INT4, 40, 33, activation="gelu")
    yield mixture(Format.FP4, Format.FP4, 64, 32, activation="clamped_swiglu", biased=True)
    yield mixture(Format.FLOAT32, Format.BFLOAT16, 17, 20, activation="clamped_swiglu", biased=True)
    yield mixture(Format.INT8, Format.FLOAT32, 40, 33, weigh="input")
    yield mixture(Format.BFLOAT16, Format.INT8, 40, 33, weigh="input", biased=True)


def routed(name: str, routing: Routing, experts: int) -> Case:
    """Returns the ids and weights of one routing, without and with a bias, and with scales."""
    scores, bias = rows(experts, torch.float32, ROWS), rows(experts, torch.float32, 1, seed=1)[0] / 30

    def both(k: Any, scores: Tensor, bias: Tensor) -> Tensor:
        found = (
            *k.route(scores, routing),
            *k.route(scores, routing, bias),
            *k.route(scores, routing, scales=bias),
        )
        return torch.cat([part.to(scores.dtype) for part in found], -1)

    return Case(f"route {name} {experts}", both, lambda s, b: both(torch_kernels, s, b), (scores, bias))


def matrices(form: Format, outs: int, ins: int) -> list[Codes]:
    """Returns a matrix for each expert: the rows of one random matrix."""
    whole = random_codes(form, EXPERTS * outs, ins)

    def part(of: Tensor | None, e: int) -> Tensor | None:
        return None if of is None else of[e * outs : (e + 1) * outs]

    return [
        Codes(form, whole.codes[e * outs : (e + 1) * outs], part(whole.scales, e), part(whole.minima, e))
        for e in range(EXPERTS)
    ]


def product(x: Tensor, codes: Codes) -> Tensor:
    """Computes the product of x, rounded as the kernels do, term by term."""
    activations = x if codes.scales is None else rounded(x)
    steps, added = (part.to(x.dtype) for part in dequantised(codes))
    total = x.new_zeros(len(x), len(steps))
    for k in range(x.shape[1]):
        total = torch.addcmul(total, activations[:, k, None], steps[None, :, k])
        total = torch.addcmul(total, activations[:, k, None], added[None, :, k])
    return total


def mixture(
    first: Format,
    second: Format,
    width: int,
    inner: int,
    *,
    activation: GatedActivation = "silu",
    biased: bool = False,
    weigh: Any = "output",
) -> Case:
    """Returns a mixture of five experts, of which one has no rows and each row has two."""
    gates, downs = matrices(first, 2 * inner, width), matrices(second, width, inner)
    packed = pack_experts([[g] for g in gates], gated=True), pack_experts([[d] for d in downs])
    x, residual = rows(width, torch.float32, ROWS) / 30, rows(width, torch.float32, ROWS, seed=3)
    ids = torch.stack([torch.arange(ROWS) * 3 % 4, torch.full((ROWS,), 4)], -1)
    ids[::5, 0] = 3
    weights = rows(2, torch.float32, ROWS, seed=4).abs()
    biases = tuple(rows(n, torch.float32, EXPERTS, seed=2) for n in (2 * inner, width))

    def run(k: Any, x: Tensor, ids: Tensor, weights: Tensor, residual: Tensor, *biases: Tensor) -> Tensor:
        return k.experts(
            x, *packed, ids, weights, activation, biases=biases or None, weigh=weigh, residual=residual
        )

    def formula(x: Tensor, ids: Tensor, weights: Tensor, residual: Tensor, *biases: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for place in range(2):
            factors = weights[:, place, None]
            inputs = x * factors if weigh == "input" else x
            outputs = torch.zeros_like(x)
            for e in range(EXPERTS):
                both = product(inputs, gates[e]) + (biases[0][e] if biases else 0)
                found = product(torch_kernels.gated(both, activation), downs[e])
                chosen = ids[:, place, None] == e
                outputs = torch.where(chosen, found + (biases[1][e] if biases else 0), outputs)
            total = total + (outputs if weigh == "input" else outputs * factors)
        return residual + total

    name = f"experts {first.name} {second.name} {width} {inner} {activation} {weigh} {biased}"
    arguments = (x, ids, weights, residual, *(biases if biased else ()))
    return Case(name, run, formula, arguments, rowwise=4)
