"""Runs batches of tokens through a model and its key/value cache, and returns hidden states and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decodery.engine.batch import Batch
from decodery.kernels.attention_layer import AttentionKind
from decodery.kernels.buffer_pool import BufferPool
from decodery.models.contract import CausalModel
from decodery.models.layers.attention import PagedAttend, plan_layers

# The number of positions whose logits are in memory at a time when a whole prompt is scored.
SCORED_AT_ONCE = 64
# Steps of at most so many tokens are kept when they first run, larger ones when they run a second time: with
# large kernels, the time that Python takes between them matters little.
CAPTURED_AT_ONCE = 64
# The most tokens of all kept steps together. Above it, the least recently used steps are dropped.
CAPTURED_TOKENS = 4096


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

    def __init__(self, tokens: Tensor, positions: Tensor, plans: Mapping[AttentionKind, Any]) -> None:
        self.tokens = tokens
        self.positions = positions
        self.plans = plans

    def again(self, tokens: list[int], positions: list[int], plans: Mapping[AttentionKind, Any]) -> States:
        """Replays the step on another input, of its size or smaller, and returns the states.

        Behind a smaller input the previous input remains, and the states of these rows are meaningless.
        """
        assert self.replay is not None
        self.tokens.numpy()[: len(tokens)] = tokens
        self.positions.numpy()[: len(tokens)] = positions
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
        """Returns the step to replay or None, and whether a step of this size may be kept.

        A size that is seen for the first time is replayed in a slightly larger step if there is one, since
        many sizes never occur again.
        """
        shape = count, layers
        if shape not in self._steps and shape not in self._seen:
            self._seen.add(shape)
            most = count + 3 + count // 32
            near = [c for c, other in self._steps if other == layers and count < c <= most]
            if not near:
                return None, count <= CAPTURED_AT_ONCE
            shape = min(near), layers
        step = self._steps.pop(shape, None)
        if step is not None:
            self._steps[shape] = step  # Now it is the most recently used.
        return step, count <= CAPTURED_TOKENS

    def keep(self, count: int, layers: tuple[int, ...], step: CapturedStep) -> None:
        """Stores a captured step, and drops the least recently used ones if the limit requires it."""
        while self._steps and sum(c for c, _ in self._steps) + count > CAPTURED_TOKENS:
            del self._steps[next(iter(self._steps))]
        self._steps[count, layers] = step


class Runner:
    """Runs a model, and owns its cache of `pages` pages in `kv_dtype` (None: the kernels' choice)."""

    def __init__(self, model: CausalModel, pages: int, kv_dtype: torch.dtype | None = None) -> None:
        self.model = model
        self._buffers = BufferPool()
        self._kinds = [layer.kind for layer in model.attention_layers]
        self._kv_dtype = kv_dtype or model.kernels.cache_dtype(model.dtype)
        self.resize(pages)

    def resize(self, pages: int) -> None:
        """Replaces the cache by an empty one of `pages` pages, and drops the captured steps."""
        self._steps = CapturedSteps()
        model = self.model
        self._cache = model.kv_shape.allocate(
            pages, self._kv_dtype, model.device, whole_pages=model.kernels.takes_page_strides()
        )

    def hidden(self, batch: Batch, layers: Iterable[int] = ()) -> States:
        """Copies pages, runs the batch, writes its keys and values, and returns the hidden states."""
        self._copy(batch.copies)
        model = self.model
        starts = [chunk.start for chunk in batch.chunks]
        lengths = [chunk.length for chunk in batch.chunks]
        plans = plan_layers(
            model.kernels,
            self._kinds,
            [chunk.sequence.pages for chunk in batch.chunks],
            starts,
            lengths,
            dtype=model.dtype,
            device=model.device,
        )
        tokens = [token for chunk in batch.chunks for token in chunk.tokens]
        positions = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
        wanted = tuple(sorted(layers))
        embedded = batch.embedded()
        if embedded is not None:
            return self._run_embedded(tokens, positions, plans, wanted, embedded)
        known, worth_keeping = self._steps.find(len(tokens), wanted)
        if known is not None:
            return known.again(tokens, positions, plans)
        step = CapturedStep(
            torch.tensor(tokens, device=model.device), torch.tensor(positions, device=model.device), plans
        )
        taps: dict[int, Tensor | None] = dict.fromkeys(wanted)

        def run() -> States:
            attend = PagedAttend(model.kernels, self._cache, plans)
            final = model.hidden(step.tokens, step.positions, attend, taps=taps)
            return States(final, {layer: tap for layer, tap in taps.items() if tap is not None})

        # Recorded also where it is not kept, so that its results use the same buffers; only what is replayed
        # can lose an operation.
        step.states, step.replay = model.kernels.capture(run, self._buffers, guarded=worth_keeping)
        if worth_keeping and step.replay is not None:
            self._steps.keep(len(tokens), wanted, step)
        return step.states

    def _run_embedded(
        self,
        tokens: list[int],
        positions: list[int],
        plans: Mapping[AttentionKind, Any],
        layers: Sequence[int],
        embedded: tuple[Tensor, Tensor],
    ) -> States:
        """Runs a step with vectors in place of embeddings. It is not captured: torch writes the vectors, and
        a captured step repeats kernels only."""
        device = self.model.device
        taps: dict[int, Tensor | None] = dict.fromkeys(layers)
        final = self.model.hidden(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            PagedAttend(self.model.kernels, self._cache, plans),
            taps=taps,
            embedded=(embedded[0].to(device), embedded[1].to(device)),
        )
        return States(final, {layer: tap for layer, tap in taps.items() if tap is not None})

    def logits(self, hidden: Tensor, indices: Sequence[int]) -> Tensor:
        """Returns the float32 logits `[len(indices), vocab]` of these rows."""
        if not indices:
            return hidden.new_zeros((0, self.model.vocab_size), dtype=torch.float32)
        if list(indices) != list(range(len(hidden))):
            hidden = hidden.index_select(0, torch.tensor(indices, device=hidden.device))
        return self.model.logits(hidden)

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        # In order: within a step, one sequence may free a page and another one allocate it.
        while copies:
            source, target = copies[0]
            self._cache.copy(source, target)
            del copies[0]
