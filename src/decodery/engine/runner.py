"""Runs batches of tokens through a model and its key/value cache, and returns hidden states and logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from decodery.engine.batch import Batch
from decodery.engine.captured_steps import CapturedStep, CapturedSteps, States
from decodery.kernels.buffer_pool import BufferPool
from decodery.models.contract import CausalModel
from decodery.models.layers.attention import PagedAttend, plan_layers

# The number of positions whose logits are in memory at a time when a whole prompt is scored.
SCORED_AT_ONCE = 64


class Runner:
    """Runs a model, and owns its cache of `pages` pages in `kv_dtype` (None: the kernels' choice)."""

    def __init__(self, model: CausalModel, pages: int, kv_dtype: torch.dtype | None = None) -> None:
        self.model = model
        self._buffers = BufferPool()
        self._kinds = [layer.kind for layer in model.attention_layers]
        self._two_sets = model.rope_set(model.context_length) > 0
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
        sets = None
        if self._two_sets:
            sets = [chunk.sequence.rope_set for chunk in batch.chunks for _ in range(chunk.length)]
        wanted = tuple(sorted(layers))
        embedded = batch.embedded()
        known, worth_keeping = self._steps.find(len(tokens), wanted) if embedded is None else (None, False)
        if known is not None:
            return known.again(tokens, positions, plans, sets)
        step = CapturedStep(
            self._tensor(tokens),
            self._tensor(positions),
            plans,
            None if sets is None else self._tensor(sets),
        )
        if embedded is not None:
            return self._run_embedded(step, wanted, embedded)
        taps: dict[int, Tensor | None] = dict.fromkeys(wanted)

        def run() -> States:
            attend = PagedAttend(model.kernels, self._cache, plans)
            final = model.hidden(step.tokens, step.positions, attend, taps=taps, sets=step.sets)
            return States(final, {layer: tap for layer, tap in taps.items() if tap is not None})

        # Recorded also where it is not kept, so that its results use the same buffers; only what is replayed
        # can lose an operation.
        step.states, step.replay = model.kernels.capture(run, self._buffers, guarded=worth_keeping)
        if worth_keeping and step.replay is not None:
            self._steps.keep(len(tokens), wanted, step)
        return step.states

    def _run_embedded(
        self, step: CapturedStep, layers: Sequence[int], embedded: tuple[Tensor, Tensor]
    ) -> States:
        """Runs a step with vectors in place of embeddings. It is not captured: torch writes the vectors, and
        a captured step repeats kernels only."""
        device = self.model.device
        taps: dict[int, Tensor | None] = dict.fromkeys(layers)
        final = self.model.hidden(
            step.tokens,
            step.positions,
            PagedAttend(self.model.kernels, self._cache, step.plans),
            taps=taps,
            embedded=(embedded[0].to(device), embedded[1].to(device)),
            sets=step.sets,
        )
        return States(final, {layer: tap for layer, tap in taps.items() if tap is not None})

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.model.device)

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
