"""Bounds the steps in which requests decode, by costs that are learned from the steps that have run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decodery.engine.batch import Batch, Chunk
from decodery.engine.prompt_scores import scored_positions
from decodery.engine.request import Request
from decodery.kernels import PAGE_SIZE

Floats = NDArray[np.float64]
_Step = tuple["Work", float]

# The costs are fitted to so many steps with a part of a prompt and so many without. A step weighs so much of
# what the next one weighs.
REMEMBERED = 32
DECAY = 0.9
# The deviation of a step's time from what its work explains, as a share of it.
NOISE = 0.1
# So many of the last steps say how far a step can exceed the fit; a single one says no more than a factor.
RECENT = 8
MOST_EXCESS = 4.0
# Seconds of a step that are outside of these are the clock's fault.
SHORTEST, LONGEST = 1e-6, 3600.0


class Work(NamedTuple):
    """Holds what makes a step long: a constant part, the tokens that run, thousands of pairs of a query and a
    key, the positions at which a next token is drawn, those at which a prompt is scored, and the tokens of
    prompts that second models run."""

    constant: float
    tokens: float
    pairs: float
    drawn: float
    scored: float
    beside: float


def work_of(chunks: Iterable[Chunk]) -> Work:
    """Returns the work of a step that runs these chunks."""
    tokens = pairs = drawn = scored = beside = 0.0
    for chunk in chunks:
        length = chunk.length
        tokens += length
        pairs += length * (chunk.start + 0.5 * length)
        if chunk.judged or chunk.is_companion:
            drawn += (len(chunk.drafts) + 1) * (1 + len(chunk.request.needs.layers))
        if chunk.request.prompt_logprobs is not None and chunk.sequence is chunk.request.sequences[0]:
            scored += len(scored_positions(chunk))
        if chunk.prefill:
            beside += length * len(chunk.request.second_models)
    return Work(1.0, tokens, pairs / 1000, drawn, scored, beside)


class StepCost:
    """Estimates the seconds of a step from its work, as a sum of a cost for each kind of work.

    The costs are fitted to the last steps by least squares and are never negative. No cost can be more than
    the time of a whole step divided by that step's work of the kind. What the steps do not tell within this
    bound makes the estimate larger, without end for a kind of work that none of them had.
    """

    def __init__(self) -> None:
        self._steps = {with_prompt: deque[_Step](maxlen=REMEMBERED) for with_prompt in (False, True)}
        self._excess = deque([MOST_EXCESS], maxlen=RECENT)
        self._costs: Floats | None = None
        self._fitted = False
        self._covariance = np.zeros((0, 0))

    def learn(self, work: Work, seconds: float, *, with_prompt: bool) -> None:
        """Takes note of a step that took so many seconds; `with_prompt` says that a part of a prompt ran."""
        if not seconds > 0:
            return
        seconds = min(max(seconds, SHORTEST), LONGEST)
        if self._costs is not None:
            expected = float(self._costs @ work)
            self._excess.append(min(seconds / expected, MOST_EXCESS) if expected > 0 else MOST_EXCESS)
        self._steps[with_prompt].append((work, seconds))
        self._fitted = False

    def fit(self) -> bool:
        """Fits the costs to the steps, if there are new ones; False if there are none at all."""
        if self._fitted:
            return True
        steps = [step for steps in self._steps.values() for step in steps]
        if not steps:
            return False
        works = np.array([work for work, _ in steps])
        seconds = np.array([seconds for _, seconds in steps])
        ages = np.concatenate([np.arange(len(s))[::-1] for s in self._steps.values()])
        # Steps that took longer than expected weigh no less: the machine may be slower now.
        expected = seconds if self._costs is None else np.maximum(works @ self._costs, seconds / 4)
        weights = DECAY**ages / (NOISE * expected) ** 2
        most = np.min(seconds[:, None] / np.maximum(works, 1e-9), axis=0)
        information = (works.T * weights) @ works + np.diag(most**-2.0)
        self._costs = _not_negative(information, works.T @ (weights * seconds))
        self._covariance = np.linalg.inv(information)
        self._fitted = True
        return True

    def at_most(self, work: Work) -> float:
        """Returns seconds that a step of this work hardly exceeds, by the last fit."""
        assert self._costs is not None, "there is no fit"
        x = np.array(work)
        unknown = math.sqrt(max(float(x @ self._covariance @ x), 0.0))
        return max(1.0, *self._excess) * float(self._costs @ x) + 2 * unknown


def _not_negative(information: Floats, products: Floats) -> Floats:
    """Returns the least-squares solution without negative costs; those that would be negative are zero."""
    kept = np.arange(len(products))
    while True:
        costs = np.zeros(len(products))
        costs[kept] = np.linalg.solve(information[np.ix_(kept, kept)], products[kept])
        if costs.min() >= 0:
            return costs
        kept = np.delete(kept, costs[kept].argmin())


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
        beside = work_of(batch.chunks)
        if self._fits(beside, rest, most):
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(beside, rest, middle) else (low, middle)
        # Large steps have one of sixteen sizes between two powers of two, since a captured step is replayed
        # for another of its size.
        total = batch.length + low
        return low - total % (1 << max(total.bit_length() - 5, 0))

    def _fits(self, beside: Work, rest: Chunk, count: int) -> bool:
        chunk = replace(rest, count=count, judged=count == rest.count, prefill=True)
        added = work_of([chunk])
        work = Work(1.0, *(a + b for a, b in zip(beside[1:], added[1:], strict=True)))
        return self.cost.at_most(work) <= self.seconds


def _decodes(batch: Batch) -> bool:
    return any(not chunk.prefill for chunk in batch.chunks)
