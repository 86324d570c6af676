"""The model and its cache: batches of tokens in, hidden states and logits out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.engine.batch import Batch
from decodery.models.layers.attention import PagedAttend
from decodery.models.registry import CausalModel

# Positions whose logits stand in memory at a time when a whole prompt is scored.
SCORED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class States:
    """Hidden states `[tokens or more, width]`: the final ones, and those after the layers that were asked
    for."""

    final: Tensor
    layers: Mapping[int, Tensor]


class Runner:
    """Owns the key/value cache of `pages` pages."""

    def __init__(self, model: CausalModel, pages: int) -> None:
        self.model = model
        self._multiple = model.kernels.row_multiple(model.dtype)
        self._cache = model.kv_shape.allocate(pages, model.dtype, model.device)

    @torch.inference_mode()
    def hidden(self, batch: Batch, layers: Iterable[int] = ()) -> States:
        """Run a batch: copies pages, writes keys and values, and returns the hidden states.

        The token batch is padded to the number of rows at which a row's bits no longer depend on its
        batch-mates; the padding comes last and is neither written nor seen.
        """
        self._copy(batch.copies)
        model = self.model
        starts = [chunk.start for chunk in batch.chunks]
        lengths = [chunk.length for chunk in batch.chunks]
        plan = model.kernels.plan_attention(
            [chunk.sequence.pages for chunk in batch.chunks],
            starts,
            lengths,
            heads=model.heads,
            kv_heads=model.kv_shape.kv_heads,
            dtype=model.dtype,
            device=model.device,
        )
        tokens = [token for chunk in batch.chunks for token in chunk.tokens]
        positions = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
        padding = [0] * (-len(tokens) % self._multiple)
        taps: dict[int, Tensor | None] = dict.fromkeys(layers)
        final = model.hidden(
            torch.tensor(tokens + padding, device=model.device),
            torch.tensor(positions + padding, device=model.device),
            PagedAttend(model.kernels, self._cache, plan),
            taps=taps,
        )
        return States(final, {layer: tap for layer, tap in taps.items() if tap is not None})

    @torch.inference_mode()
    def logits(self, hidden: Tensor, indices: Sequence[int]) -> Tensor:
        """The float32 logits `[len(indices), vocab]` at these rows of `hidden`, padded likewise within."""
        if not indices:
            return hidden.new_zeros((0, self.model.vocab_size), dtype=torch.float32)
        padded = [*indices, *[indices[0]] * (-len(indices) % self._multiple)]
        if padded != list(range(len(hidden))):
            hidden = hidden[torch.tensor(padded, device=hidden.device)]
        return self.model.logits(hidden)[: len(indices)]

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        # In order: a page may be given up by one sequence and taken by the next within a step.
        while copies:
            source, target = copies[0]
            for cache in (self._cache.keys, self._cache.values):
                cache[:, target] = cache[:, source]
            del copies[0]
