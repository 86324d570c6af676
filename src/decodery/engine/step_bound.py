"""Bounds the length of the steps in which requests decode."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decodery.engine.batch import Batch, Chunk
from decodery.engine.request import Request
from decodery.engine.step_cost import StepCost, work_of
from decodery.kernels import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class StepBound:
    """Says how much of a prompt fits into a step that may take so many `seconds`, by the `cost` of steps.

    A step in which nothing decodes is not bounded. In any other step the first prompt gets at least a page
    of tokens, so that its computation goes on. Further ones get what still fits, if that is a page or all
    that is left of them.
    """

    cost: StepCost
    seconds: float

    def tokens(self, batch: Batch, rest: Chunk, most: int) -> int:
        """Returns how many tokens of `rest`, at most `most`, fit into the step beside the batch."""
        if not _decodes(batch):
            return most
        most = min(rest.count, most)
        least = min(PAGE_SIZE, most)
        fitting = self._fitting(batch, rest, most) if self.cost.fit() else 0
        if fitting >= least:
            return fitting
        return 0 if any(chunk.prefill for chunk in batch.chunks) else least

    def is_reached(self, batch: Batch, request: Request) -> bool:
        """True if a request that is not in the batch gets no token in this step."""
        sequence = request.sequences[0]
        return self.tokens(batch, Chunk(request, sequence, sequence.known), PAGE_SIZE) == 0

    def _fitting(self, batch: Batch, rest: Chunk, most: int) -> int:
        if self._fits(batch, rest, most):
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(batch, rest, middle) else (low, middle)
        # Large steps have one of sixteen sizes between two powers of two, since a captured step is replayed
        # for another of its size.
        total = batch.length + low
        return low - total % (1 << max(total.bit_length() - 5, 0))

    def _fits(self, batch: Batch, rest: Chunk, count: int) -> bool:
        chunk = replace(rest, count=count, judged=count == rest.count)
        return self.cost.at_most(work_of([*batch.chunks, chunk])) <= self.seconds


def _decodes(batch: Batch) -> bool:
    return any(not chunk.prefill for chunk in batch.chunks)
