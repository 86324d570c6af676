"""Defines what tasks have in common of which only the split of the data can be changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from decodery.evaluation.variant import Variant


@dataclass(frozen=True, slots=True)
class SplitTask:
    """Holds the fields of a task. With `split` None, its published split is asked about."""

    name: str
    version: int = 1
    shots: int = 0
    first_shots: bool = False
    split: str | None = None

    def varied(self, variant: Variant) -> Self:
        """Returns the task over another split. Raises `ParameterError` for any other change."""
        variant.only(self.name, "split")
        return replace(self, split=variant.split or self.split)
