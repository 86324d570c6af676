"""Lists what distinguishes a head from others, each with the edit that takes it away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from decodery.models.encoders.heads import MaskedLM, activated

OTHERS = ("linear", "tanh", "relu", "gelu", "gelu_tanh", "silu")
"""The activations that one could mistake for another."""
ALIKE = {"gelu", "gelu_tanh"}
"""These two differ by less than 5e-4."""
NEXT_PLACE = {"mean": "first", "first": "last", "last": "first"}


class HeadTrait(NamedTuple):
    """Is a trait of a head: the edit that takes it away, and by how much the scores must differ then."""

    name: str
    remove: Callable[[Any], object]
    least: float = 1e-3


def head_traits(head: Any) -> Iterator[HeadTrait]:
    """Yields the traits of a `Classes` or `MaskedLM`, as its parts say, so that none is forgotten."""
    if head.reads in NEXT_PLACE:
        yield HeadTrait("place", lambda head: setattr(head, "reads", NEXT_PLACE[head.reads]))
    if head.dense is None:
        yield HeadTrait("no dense layer", lambda head: setattr(head, "forward", _of(torch.tanh, head)))
    else:
        yield from _dense_traits(head)
    if head.norm is not None:
        yield HeadTrait("norm", lambda head: setattr(head, "norm", nn.Identity()))
        yield HeadTrait("epsilon of the norm", lambda head: setattr(head.norm, "eps", 0.3))
    if isinstance(head, MaskedLM) and head.embedding is not None:
        yield HeadTrait("matrix", lambda head: head.embedding.weight.copy_(head.embedding.weight.flip(0)))
    if _bias(head) is not None:
        yield HeadTrait("bias", lambda head: _bias(head).zero_())


def _dense_traits(head: Any) -> Iterator[HeadTrait]:
    if head.dense.weight.shape[0] == head.dense.weight.shape[1]:
        yield HeadTrait("dense layer", lambda head: setattr(head, "dense", nn.Identity()))
    if head.dense.bias is not None:
        yield HeadTrait("bias of the dense layer", lambda head: head.dense.bias.zero_())
    for other in OTHERS:
        if other != head.activation:
            least = 1e-4 if {other, head.activation} == ALIKE else 1e-3
            yield HeadTrait(f"{head.activation}, not {other}", _activate(other), least)
    if head.norm is not None:
        yield HeadTrait("norm behind the activation", _normalise_first)


def _activate(other: Any) -> Callable[[Any], None]:
    """Returns the edit that gives a head another activation, also one that its class does not take."""

    def edit(head: Any) -> None:
        dense, kernels = head.dense, head.kernels
        head.dense = _Then(dense, lambda states: activated(states, other, kernels))
        head.activation = "linear"
        if isinstance(head, MaskedLM):
            head.kernels = _NoActivation(kernels)

    return edit


def _normalise_first(head: Any) -> None:
    head.dense = _Then(head.dense, head.norm)
    head.norm = nn.Identity()


class _Then(nn.Module):
    """Applies a function to what a module computes."""

    def __init__(self, module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, states: Tensor) -> Tensor:
        return self.function(self.module(states))


class _NoActivation:
    """Is the kernels whose activation does nothing."""

    def __init__(self, kernels: Any) -> None:
        self.linear = kernels.linear

    def activation(self, x: Tensor, name: str) -> Tensor:
        return x


def _of(function: Callable[[Tensor], Tensor], head: Any) -> Callable[[Tensor], Tensor]:
    forward: Callable[[Tensor], Tensor] = head.forward
    return lambda states: forward(function(states))


def _bias(head: Any) -> Any:
    return head.bias if isinstance(head, MaskedLM) else head.out.bias
