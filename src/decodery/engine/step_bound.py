"""Bounds the length of the steps in which requests decode."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decodery.engine.batch import Batch, Chunk
from decodery.engine.step_cost import StepCost, work_of
from decodery.kernels import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class StepBound:
    """Says how much of a prompt fits into a step that may take so many `seconds`, by the `cost` of steps.

    A step in which nothing decodes is not bounded. In any other step the first prompt gets at least a page of
    tokens, so that its computation goes on, and further ones what still fits.
    """

    cost: StepCost
    seconds: float

    def tokens(self, batch: Batch, rest: Chunk, most: int) -> int:
        """Returns how many tokens of `rest`, at most `most`, fit into the step beside the batch."""
        if not _decodes(batch):
            return most
        least = 0 if any(chunk.prefill for chunk in batch.chunks) else min(PAGE_SIZE, most)
        most = min(rest.count, most)
        if not self.cost.fit():
            return min(least, most)
        if self._fits(batch, rest, most):
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(batch, rest, middle) else (low, middle)
        # Steps of few different sizes, since a captured step is replayed for another of its size.
        rounded = low - (batch.length + low) % PAGE_SIZE
        return max(rounded if rounded > 0 else low, least)

    def is_reached(self, batch: Batch) -> bool:
        """True if a prompt that is not in the batch gets no token in this step."""
        if not _decodes(batch) or not any(chunk.prefill for chunk in batch.chunks):
            return False
        work = work_of(batch.chunks)
        return not self.cost.fit() or self.cost.at_most(work._replace(tokens=work.tokens + 1)) > self.seconds

    def _fits(self, batch: Batch, rest: Chunk, count: int) -> bool:
        chunk = replace(rest, count=count, judged=count == rest.count)
        return self.cost.at_most(work_of([*batch.chunks, chunk])) <= self.seconds


def _decodes(batch: Batch) -> bool:
    return any(not chunk.prefill for chunk in batch.chunks)
