"""What the engine asks of a second model over the same tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from decodery.decoding.rows import Draw, Row
from decodery.kernels.contract import Kernels


class SecondModel(Protocol):
    """A second model: it drafts ahead, or scores what the first one scores.

    It is told rows only by their tokens, so that forks and rewinds need no telling.
    """

    @property
    def kernels(self) -> Kernels:
        """Those of its model."""

    def logits(self, runs: Sequence[tuple[Row, tuple[int, ...]]]) -> Tensor:
        """Scores float32 `[positions, vocab]` after each row's last known token and after each of its
        drafts."""

    def draft(self, rows: Sequence[Row], counts: Sequence[int], draw: Draw) -> list[tuple[list[int], Tensor]]:
        """For each row at most so many tokens that `draw` draws from this model's scores, and the processed
        logits `[tokens, vocab]` that they were drawn from."""

    def retain(self, rows: Iterable[Row]) -> None:
        """Give up what is held for the requests of other rows than these."""

    def start_over(self) -> None:
        """Give up all that is held, after an interrupt that may have come anywhere."""

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless its books agree."""
