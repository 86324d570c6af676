"""Describes the tokens that one step runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from decodery.engine.request import Request, Sequence


@dataclass(slots=True)
class Chunk:
    """Holds what a step runs of one sequence: `count` known tokens after the computed ones, then `drafts`.

    A `judged` chunk covers all known tokens that are not computed, and its scores are wanted at the last
    known token and at each draft. `companion` is the chunk of the sequence's companion, if a judged sequence
    has one; that chunk itself has `is_companion` set. A `prefill` chunk is a part of a prompt, or of the
    known tokens of a request that was preempted. `place` is the index in the request of the sequence, or of
    the sequence that it is a fork of.
    """

    request: Request
    sequence: Sequence
    count: int
    drafts: tuple[int, ...] = ()
    judged: bool = False
    place: int = 0
    companion: Chunk | None = None
    is_companion: bool = False
    prefill: bool = False

    @property
    def start(self) -> int:
        """Returns the position of the first token that runs."""
        return self.sequence.computed

    @property
    def length(self) -> int:
        """Returns the number of tokens that run."""
        return self.count + len(self.drafts)

    @property
    def tokens(self) -> list[int]:
        """Returns the tokens that run."""
        start = self.start
        return [*self.sequence.row.tokens[start : start + self.count], *self.drafts]


@dataclass(slots=True)
class Batch:
    """Holds the chunks of one step; those of one request are adjacent.

    `copies` are the pages `(from, to)` to copy before the step, in this order. The runner removes each pair
    from the list once it is copied. `started` are the requests that did not run before this step.
    `length` is the number of tokens that all chunks run.
    """

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    started: list[Request] = field(default_factory=list)
    length: int = 0

    def add(self, chunk: Chunk) -> None:
        """Appends a chunk."""
        self.chunks.append(chunk)
        self.length += chunk.length
        request = chunk.request
        if request.times.started is None and request not in self.started:
            self.started.append(request)

    def remove(self, request: Request) -> None:
        """Removes the chunks of a request."""
        self.chunks = [chunk for chunk in self.chunks if chunk.request is not request]
        self.started = [other for other in self.started if other is not request]
        self.length = sum(chunk.length for chunk in self.chunks)

    def embedded(self) -> tuple[Tensor, Tensor] | None:
        """Returns the indices [n] of the tokens that have vectors in place of embeddings, and the vectors [n,
        width]; None if there are none."""
        indices: list[int] = []
        vectors: list[Tensor] = []
        base = 0
        for chunk in self.chunks:
            prompt = chunk.sequence.embedded
            if prompt is not None:
                positions, found = prompt.between(chunk.start, chunk.start + chunk.length)
                indices += [base + position - chunk.start for position in positions]
                vectors.append(found)
            base += chunk.length
        return (torch.tensor(indices), torch.cat(vectors)) if indices else None
