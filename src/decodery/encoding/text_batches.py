"""Runs whole texts through an encoder, many in one batch and none of them padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from decodery.encoding.captured_passes import CapturedPasses
from decodery.kernels import PAGE_SIZE
from decodery.kernels.cache import KVShape, PagedCache
from decodery.kernels.threads import threads_set
from decodery.models.contract import EncoderModel
from decodery.models.layers.attention import PackedAttend, Plans, plan_layers

TOKENS_AT_ONCE = 4096
"""The number of tokens that a batch has at most, if it has several texts."""


@dataclass(frozen=True)
class TokenText:
    """Holds the tokens of a text or of a pair of texts, all that the model reads.

    `segments` number the texts of a pair from 0, one number for each token. `content` are the places that are
    neither special tokens nor a prompt's, as slices of the ids. `lost` is the number of the text's tokens
    that were cut off. `seen` is the number of its first tokens that are seen by all of them, None for all:
    none sees those behind, which fill up a query.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    content: tuple[tuple[int, int], ...] = ()
    lost: int = 0
    seen: int | None = None


class Batch(NamedTuple):
    """Holds the states of some texts: [tokens, width], one text behind another.

    `indices` are the texts' places in the input, `starts` and `lengths` those of their tokens in the states.
    `layers` are the states after so many layers that were asked for.
    """

    indices: Sequence[int]
    starts: Sequence[int]
    lengths: Sequence[int]
    states: Tensor
    layers: dict[int, Tensor]

    def of(self, place: int, states: Tensor | None = None) -> Tensor:
        """Returns the states [length, width] of the batch's text number `place`."""
        start = self.starts[place]
        return (self.states if states is None else states)[start : start + self.lengths[place]]


class TextRunner(Protocol):
    """Runs texts through one encoder, as `BatchRunner` does."""

    @property
    def model(self) -> EncoderModel: ...

    def run(
        self, texts: Sequence[TokenText], *, layers: Iterable[int] = (), tokens: int = TOKENS_AT_ONCE
    ) -> Iterator[Batch]: ...


class BatchRunner:
    """Runs texts through one encoder, from any thread.

    Each text's states depend on nothing but the text: on the native backend bit for bit. A batch runs on
    `threads` threads (None: the process's number).
    """

    def __init__(self, model: EncoderModel, threads: int | None = None) -> None:
        self.model = model
        self._threads = threads
        self._lock = Lock()
        self._cache: PagedCache | None = None
        self._pages = 0
        self._passes = CapturedPasses(model.kernels)

    def run(
        self, texts: Sequence[TokenText], *, layers: Iterable[int] = (), tokens: int = TOKENS_AT_ONCE
    ) -> Iterator[Batch]:
        """Yields the texts' states in batches of about `tokens` tokens, the longest texts first.

        A batch's tensors are its own. A text must have a token, and no more than the model's context.
        """
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index].ids))
        for indices in _grouped(order, [len(text.ids) for text in texts], tokens):
            yield self._run(indices, [texts[index] for index in indices], layers)

    @torch.inference_mode()
    def _run(self, indices: Sequence[int], texts: Sequence[TokenText], layers: Iterable[int]) -> Batch:
        model = self.model
        lengths = [len(text.ids) for text in texts]
        starts = [0, *accumulate(lengths)][:-1]
        device = model.device
        tokens = torch.tensor([token for text in texts for token in text.ids], device=device)
        segments = torch.tensor([segment for text in texts for segment in text.segments], device=device)
        positions = torch.cat([model.text_positions(part) for part in tokens.split_with_sizes(lengths)])
        taps: dict[int, Tensor | None] = dict.fromkeys(layers)

        def compute(tokens: Tensor, positions: Tensor, segments: Tensor, plans: Plans) -> Tensor:
            attend = PackedAttend(model.kernels, cache, plans, lengths)
            return model.hidden(tokens, positions, segments, attend, taps=taps)

        with self._lock, threads_set(torch_threads=self._threads, kernel_threads=self._threads):
            seen = [text.seen or len(text.ids) for text in texts]
            plans, cache = self._plans(lengths, None if seen == lengths else seen)
            inputs = tokens, positions, model.text_segments(segments, lengths)
            # A model that attends to whole texts computes with torch, which cannot be captured.
            if plans and not taps and self._passes.takes(len(tokens)):
                states = self._passes.run(inputs, plans, compute)
            else:
                states = compute(*inputs, plans)
        found = {layer: tap for layer, tap in taps.items() if tap is not None}
        return Batch(indices, starts, lengths, states, found)

    def _plans(self, lengths: Sequence[int], seen: Sequence[int] | None) -> tuple[Plans, PagedCache]:
        """Returns the plans of texts of these lengths, and the pages that they use.

        `seen` are the numbers of their first tokens that are seen, None for all.
        """
        model = self.model
        if not model.attention_layers:
            assert seen is None
            return {}, PagedCache((), {})
        counts = [-(-length // PAGE_SIZE) for length in lengths]
        first = [0, *accumulate(counts)]
        tables = [range(start, start + count) for start, count in zip(first, counts, strict=False)]
        kinds = [layer.kind for layer in model.attention_layers]
        plans = plan_layers(
            model.kernels,
            kinds,
            [list(table) for table in tables],
            [0] * len(lengths),
            lengths,
            dtype=model.dtype,
            device=model.device,
            keys=seen,
        )
        return plans, self._pages_for(first[-1])

    def _pages_for(self, pages: int) -> PagedCache:
        """Returns a cache in full precision: of one layer, which all layers write and read in turn.

        Where layers differ, or read again what an earlier one wrote, it has all of them.
        """
        if self._cache is None or pages > self._pages:
            layers = self.model.attention_layers
            alike = len({(layer.kv_heads, layer.k_width, layer.v_width) for layer in layers}) == 1
            apart = not alike or any(layer.kv_source is not None for layer in layers)
            shape = KVShape.of(layers if apart else layers[:1])
            cache = shape.allocate(pages, self.model.dtype, self.model.device)
            if not apart:
                pair = cache.layers[layers[0].kv_index]
                cache = PagedCache(cache.blocks, {layer.kv_index: pair for layer in layers})
            self._cache = cache
            self._pages = pages
            self._passes.clear()
        return self._cache


def _grouped(order: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yields consecutive groups of indices whose lengths add up to at most `most`, at least one in each."""
    group: list[int] = []
    total = 0
    for index in order:
        if group and total + lengths[index] > most:
            yield group
            group, total = [], 0
        group.append(index)
        total += lengths[index]
    if group:
        yield group
