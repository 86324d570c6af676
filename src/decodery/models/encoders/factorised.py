"""Defines what encoders share whose embeddings are narrower than their layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.contract import Head
from decodery.models.encoders.bert import Bert
from decodery.models.encoders.encoder_config import EncoderConfig
from decodery.models.layers.linear import Linear


@dataclass(frozen=True)
class FactorisedConfig(EncoderConfig):
    """Adds the width of the embeddings."""

    table_width: int

    @property
    def embedding_width(self) -> int:
        return self.table_width


class FactorisedBert(Bert):
    """Defines a BERT whose embeddings are projected to the width of the layers, if that differs.

    `projects`: they are projected even if it does not. Lan et al., ALBERT (2020), section 3.1.
    """

    def __init__(
        self,
        config: FactorisedConfig,
        kernels: Kernels,
        head: Head,
        layers: Iterable[nn.Module] | None = None,
        *,
        projects: bool = False,
    ) -> None:
        super().__init__(config, kernels, head, layers)
        inner = config.embedding_width
        needed = projects or inner != config.width
        self.projection = Linear(inner, config.width, kernels, bias=True) if needed else None

    def embed(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Returns the first layer's inputs [..., width]."""
        x = super().embed(tokens, positions, segments)
        return x if self.projection is None else self.projection(x)
