"""A second model over the same tokens: it drafts ahead, or scores what the first one scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from decodery.decoding.rows import Row
from decodery.models.registry import CausalModel

Extend = Callable[[Sequence[Row], Tensor], tuple[Sequence[int], Tensor]]


class Assistant:
    """A model with a key/value cache of its own, in which it follows any number of rows.

    A row's pages are found again by the row's tokens, so that forks and rewinds need no telling.
    """

    def __init__(self, model: CausalModel, pages: int) -> None:
        self.model = model

    def logits(self, runs: Sequence[tuple[Row, tuple[int, ...]]]) -> Tensor:
        """Scores float32 `[positions, vocab]` after each row's last known token and after each of its
        drafts."""
        raise NotImplementedError

    def draft(
        self, rows: Sequence[Row], counts: Sequence[int], extend: Extend
    ) -> list[tuple[list[int], Tensor]]:
        """For each row so many tokens that `extend` draws from this model's scores, and the processed logits
        `[count, vocab]` that they were drawn from."""
        raise NotImplementedError

    def retain(self, rows: Iterable[Row]) -> None:
        """Give up what is held for rows other than these."""
        raise NotImplementedError
