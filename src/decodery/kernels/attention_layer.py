"""Describes the attention of one layer of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from decodery.kernels.relative_bias import RelativeBias


class AttentionKind(NamedTuple):
    """Holds the properties of a layer that the plan of a step depends on; layers of one kind share a plan."""

    heads: int
    kv_heads: int
    window: int | None = None
    chunk: int | None = None
    causal: bool = True

    def first_key(self, position: int) -> int:
        """Returns the position of the first key that a query at `position` sees."""
        first = 0 if self.window is None else max(0, position - self.window + 1)
        return first if self.chunk is None else max(first, position - position % self.chunk)

    def end_key(self, position: int, limit: int) -> int:
        """Returns the position behind the last key that a query at `position` sees, of `limit` keys."""
        if self.causal:
            return min(limit, position + 1)
        if self.window is not None:
            limit = min(limit, position + self.window)
        return limit if self.chunk is None else min(limit, position - position % self.chunk + self.chunk)

    def hidden(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Returns True where queries at positions `queries` do not see keys at positions `keys`, broadcast
        together.
        """
        hidden = keys > queries if self.causal else (keys > queries) & False
        if self.window is not None:
            hidden |= keys <= queries - self.window
            if not self.causal:
                hidden |= keys >= queries + self.window
        if self.chunk is not None:
            hidden |= keys // self.chunk != queries // self.chunk
        return hidden


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """Describes the attention of one layer; a family makes it when a model is loaded.

    `index` numbers the layers that keep keys and values, each its own. A head's queries and keys have
    `k_width` numbers, its values `v_width`. A score is `scale` times the product of query and key, or `cap *
    tanh(scale * product / cap)` with `softcap` (Gemma 2). Then `bias` is added. A query at position p sees
    the keys at p and before it, and if not `causal` the later ones too. With `window` it sees those at a
    distance below `window`, with `chunk` those at positions with the same quotient by `chunk` (Llama 4).
    `sinks` [heads] in float32 are further scores, one for each head, that only join the softmax's
    denominator (gpt-oss). With `kv_source` the layer has no keys and values: it reads those of the earlier
    layer with this index.
    """

    index: int
    heads: int
    kv_heads: int
    k_width: int
    v_width: int
    scale: float
    softcap: float | None = None
    window: int | None = None
    chunk: int | None = None
    bias: RelativeBias | None = None
    causal: bool = True
    sinks: Tensor | None = None
    kv_source: int | None = None

    @property
    def kind(self) -> AttentionKind:
        return AttentionKind(self.heads, self.kv_heads, self.window, self.chunk, self.causal)

    @property
    def kv_index(self) -> int:
        """Returns the index of the layer whose keys and values this one reads."""
        return self.index if self.kv_source is None else self.kv_source
