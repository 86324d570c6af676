"""Decides which sizes of steps are captured, and holds the captured steps for replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from decodery.kernels.attention_layer import AttentionKind

# Steps of at most so many tokens are kept when they first run, larger ones when they run a second time: with
# large kernels, the time that Python takes between them matters little.
LARGEST_KEPT_AT_FIRST = 64
# The most tokens of all kept steps together. Above it, the least recently used steps are dropped.
MOST_KEPT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class States:
    """Holds hidden states `[tokens or more, width]`: the final ones, and those after the layers asked for.

    The next batch overwrites them.
    """

    final: Tensor
    layers: Mapping[int, Tensor]


class CapturedStep:
    """Holds the input tensors of a captured step and the function that replays it."""

    states: States
    replay: Callable[[], None] | None

    def __init__(
        self,
        tokens: Tensor,
        positions: Tensor,
        plans: Mapping[AttentionKind, Any],
        sets: Tensor | None = None,
    ) -> None:
        self.tokens = tokens
        self.positions = positions
        self.plans = plans
        self.sets = sets

    def again(
        self,
        tokens: list[int],
        positions: list[int],
        plans: Mapping[AttentionKind, Any],
        sets: list[int] | None = None,
    ) -> States:
        """Replays the step on another input, of its size or smaller, and returns the states.

        Behind a smaller input the previous input remains, and the states of these rows are meaningless.
        """
        assert self.replay is not None
        self.tokens.numpy()[: len(tokens)] = tokens
        self.positions.numpy()[: len(tokens)] = positions
        if self.sets is not None:
            self.sets.numpy()[: len(tokens)] = sets
        for kind, plan in self.plans.items():
            plan.become(plans[kind])
        self.replay()
        return self.states


class CapturedSteps:
    """Holds captured steps by the number of tokens and the layers whose states are returned."""

    def __init__(self) -> None:
        self._steps: dict[tuple[int, tuple[int, ...]], CapturedStep] = {}
        self._seen: set[tuple[int, tuple[int, ...]]] = set()

    def find(self, count: int, layers: tuple[int, ...]) -> tuple[CapturedStep | None, bool]:
        """Returns the captured step to replay, or None and whether to keep the step that runs instead.

        A size that is seen for the first time is replayed in a slightly larger step if there is one, since
        many sizes never occur again.
        """
        shape = count, layers
        if shape not in self._steps and shape not in self._seen:
            self._seen.add(shape)
            most = count + 3 + count // 32
            near = [c for c, other in self._steps if other == layers and count < c <= most]
            if not near:
                return None, count <= LARGEST_KEPT_AT_FIRST
            shape = min(near), layers
        step = self._steps.pop(shape, None)
        if step is not None:
            self._steps[shape] = step  # Now it is the most recently used.
        return step, count <= MOST_KEPT_TOKENS

    def keep(self, count: int, layers: tuple[int, ...], step: CapturedStep) -> None:
        """Stores a captured step, and drops the least recently used ones if the limit requires it."""
        while self._steps and sum(c for c, _ in self._steps) + count > MOST_KEPT_TOKENS:
            del self._steps[next(iter(self._steps))]
        self._steps[count, layers] = step
