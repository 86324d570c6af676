"""What is added to attention's scores by how far a key stands from its query."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RelativeBias(NamedTuple):
    """A score's bias by the position of its key relative to its query.

    `table` [heads, columns] in float32 has a column for each relative position, ascending; column `zero` is
    for the query's own. What lies beyond either end has the end's bias, as the last buckets of T5 have it
    (Raffel et al., 2020); a table as long as the context holds ALiBi's slopes times distances (Press et al.,
    2022).
    """

    table: Tensor
    zero: int

    def columns(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The columns of keys at positions `keys` seen from positions `queries`, broadcast together."""
        return (keys - queries + self.zero).clamp(0, self.table.shape[1] - 1)

    def scores(self, length: int) -> Tensor:
        """What is added to the scores of a whole sequence: [heads, length, length]."""
        positions = torch.arange(length, device=self.table.device)
        return self.table[:, self.columns(positions[:, None], positions)]
