"""Defines biases of attention scores that depend on the position of the key relative to the query."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RelativeBias(NamedTuple):
    """Holds the bias of attention scores by the position of a key relative to its query.

    `table` [heads, columns] in float32 has a column for each relative position, ascending; column `zero` is
    that of the query's own position. Positions beyond either end have the bias of that end, as the last
    buckets of T5 do (Raffel et al., 2020). A table as long as the context holds the slopes times distances of
    ALiBi (Press et al., 2022).
    """

    table: Tensor
    zero: int

    def columns(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Returns the columns for keys at positions `keys` and queries at positions `queries`, broadcast
        together.
        """
        return (keys - queries + self.zero).clamp(0, self.table.shape[1] - 1)

    def scores(self, length: int) -> Tensor:
        """Returns the bias of all scores of a sequence: [heads, length, length]."""
        positions = torch.arange(length, device=self.table.device)
        return self.table[:, self.columns(positions[:, None], positions)]
