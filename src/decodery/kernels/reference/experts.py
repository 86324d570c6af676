"""Computes mixtures of experts with torch: which experts a token has, and their outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from decodery.kernels.routing import Routing

Biases = tuple[Tensor, Tensor]

LEAST = 1e-20
"""Is added to the sum by which probabilities are divided, which is 0 where all of them underflow."""


def route(
    scores: Tensor, routing: Routing, bias: Tensor | None = None, scales: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the experts of scores [..., experts] and their weights, [..., count] each; differentiable.

    The experts are int64, the best first, the weights float32. `bias` and `scales` are [experts].
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    sigmoid = routing.probability == "sigmoid"
    probabilities = scores.sigmoid() if sigmoid else scores.softmax(-1)
    values = (scores if bias is None else probabilities + bias).detach()
    if routing.kept_groups < routing.groups:
        by_group = values.view(*values.shape[:-1], routing.groups, -1)
        sums = by_group.topk(routing.best_of_group, -1).values.sum(-1)
        left_out = _descending(sums)[..., routing.kept_groups :]
        hidden = torch.zeros_like(sums, dtype=torch.bool).scatter(-1, left_out, True)
        values = by_group.masked_fill(hidden[..., None], -torch.inf).flatten(-2)
    ids = _descending(values)[..., : routing.count]
    if routing.within is not None:
        weights = _among_near(scores, ids, routing.within)
    else:
        weights = probabilities.gather(-1, ids)
        if routing.renormalised:
            weights = weights / (weights.sum(-1, keepdim=True) + LEAST)
    if scales is not None:
        weights = weights * scales.to(weights.dtype)[ids]
    return ids, weights * routing.factor


def _among_near(scores: Tensor, ids: Tensor, within: float) -> Tensor:
    """Returns the weight of each of the chosen scores among those that are left and near it."""
    left, weights = scores, []
    for chosen in ids.split_with_sizes((1,) * ids.shape[-1], -1):
        best = scores.gather(-1, chosen).detach()
        far = (best - scores) / torch.maximum(scores.abs(), best) > within
        weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, chosen))
        left = left.scatter(-1, chosen, -torch.inf)
    return torch.cat(weights, -1)


def _descending(values: Tensor) -> Tensor:
    return values.argsort(stable=True, dim=-1, descending=True)


def mixed(
    x: Tensor,
    stacks: tuple[Tensor, Tensor],
    ids: Tensor,
    weights: Tensor,
    gated: Callable[[Tensor], Tensor],
    *,
    biases: Biases | None,
    weigh: Literal["output", "input"],
    residual: Tensor | None,
) -> Tensor:
    """Computes `Kernels.experts` of the stacks of gate and up and of down; differentiable.

    Each expert runs for all its rows at once. The sums are in float32 at least.
    """
    flat, chosen, weights = x.flatten(0, -2), ids.flatten(0, -2), weights.flatten(0, -2)
    wide = torch.promote_types(x.dtype, torch.float32)
    total = flat.new_zeros(flat.shape, dtype=wide)
    for expert, (gate_up, down) in enumerate(zip(*stacks, strict=True)):
        rows, places = (chosen == expert).nonzero(as_tuple=True)
        if not len(rows):
            continue
        biased = (None, None) if biases is None else (biases[0][expert], biases[1][expert])
        factors, inputs = weights[rows, places, None], flat[rows]
        if weigh == "input":
            inputs = (inputs * factors).to(x.dtype)
        outputs = F.linear(gated(F.linear(inputs, gate_up, biased[0])), down, biased[1]).to(wide)
        total = total.index_add(0, rows, outputs if weigh == "input" else outputs * factors)
    out = total.to(x.dtype).view(x.shape)
    return out if residual is None else residual + out
