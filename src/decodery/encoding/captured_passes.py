"""Keeps the kernel calls of small batches, and repeats them without Python between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from decodery.errors import CaptureError
from decodery.kernels.attention_layer import AttentionKind
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.contract import Kernels

# In larger batches the kernels take so long that the time between them does not matter.
LARGEST_CAPTURED = 256
MOST_CAPTURED = 64


class CapturedPass:
    """Holds the inputs of one captured pass through a model, its states, and the function that repeats it."""

    def __init__(self, inputs: Sequence[Tensor], plans: Mapping[AttentionKind, Any]) -> None:
        self.inputs = inputs
        self.plans = plans
        self.states: Tensor
        self.replay: Callable[[], None]


class CapturedPasses:
    """Holds captured passes by their number of tokens, the least recently used first.

    They share memory for their states, which the next pass overwrites.
    """

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._buffers = BufferPool()
        self._passes: dict[int, CapturedPass] = {}
        self._captures = kernels.captures()

    def clear(self) -> None:
        """Drops all passes: the memory that they read or write has moved."""
        self._passes.clear()

    def takes(self, tokens: int) -> bool:
        """True if a batch of so many tokens is to be run by `run`."""
        return self._captures and tokens <= LARGEST_CAPTURED

    def run(
        self,
        inputs: Sequence[Tensor],
        plans: Mapping[AttentionKind, Any],
        compute: Callable[..., Tensor],
    ) -> Tensor:
        """Returns `compute(*inputs, plans)`, the states of some tokens, and captures it if it is new.

        A model that computes with torch between its kernels is run as it is, from then on all the time.
        """
        size = len(inputs[0])
        found = self._passes.pop(size, None)
        if found is None:
            found = self._captured(inputs, plans, compute)
            if found is None:
                return compute(*inputs, plans)
        else:
            for held, given in zip(found.inputs, inputs, strict=True):
                held.copy_(given)
            for kind, plan in found.plans.items():
                plan.become(plans[kind])
            found.replay()
        self._passes[size] = found
        if len(self._passes) > MOST_CAPTURED:
            del self._passes[next(iter(self._passes))]
        return found.states.clone()

    def _captured(
        self,
        inputs: Sequence[Tensor],
        plans: Mapping[AttentionKind, Any],
        compute: Callable[..., Tensor],
    ) -> CapturedPass | None:
        found = CapturedPass([part.clone() for part in inputs], plans)
        try:
            found.states, replay = self._kernels.capture(lambda: compute(*found.inputs, plans), self._buffers)
        except CaptureError:
            replay = None
        if replay is None:
            self._captures = False
            return None
        found.replay = replay
        return found
