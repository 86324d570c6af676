"""Declares the protocol of a second model, which runs the same tokens beside the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from decodery.decoding.rows import Draw, Row
from decodery.models.contract import CausalModel


class SecondModel(Protocol):
    """Drafts tokens for rows, or scores them at the positions at which the first model scores them.

    A second model knows a row by its tokens alone, so the engine need not report forks and rewinds.
    """

    @property
    def model(self) -> CausalModel:
        """Returns its model."""

    def logits(self, runs: Sequence[tuple[Row, tuple[int, ...]]]) -> Tensor:
        """Returns the float32 logits `[positions, vocab]` after the last known token of each row and after
        each of its drafts."""

    def compute(self, row: Row) -> None:
        """Computes the row's tokens ahead of calls that continue it, as far as the model's context goes."""

    def draft(self, rows: Sequence[Row], counts: Sequence[int], draw: Draw) -> list[tuple[list[int], Tensor]]:
        """Returns drafts for each row, at most `counts[i]` for row i, and the processed logits `[tokens,
        vocab]` from which `draw` drew them."""

    def retain(self, rows: Iterable[Row]) -> None:
        """Frees what is kept for requests that none of these rows belongs to."""

    def resize(self, pages: int) -> None:
        """Makes the number of pages `pages`, and frees all sequences."""

    def start_over(self) -> None:
        """Frees all sequences, after an interrupt at any point."""

    def check_integrity(self) -> None:
        """Raises `AssertionError` unless its pages and sequences agree."""
