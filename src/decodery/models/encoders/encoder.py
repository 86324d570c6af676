"""Defines the parts that encoders share: embeddings, layers on a residual stream, and heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.encoders.encoder_config import EncoderConfig
from decodery.models.layers.attention import Attend, Attention, DenseAttend, TextAttend
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.norm import LayerNorm


class Encoder(nn.Module):
    """Computes the states of whole texts and the outputs of its heads; its parameters are not initialised.

    A family passes its layers, each called as `layer(x, given, attend)` with its attention as `attn`. It
    adds its heads with `give_heads`. It overrides `embed` if it does more than add embeddings and normalise
    the sum, `layer_inputs` if layers read more than the states, and `text_positions` if positions do not
    count tokens from 0. `tied`: the embedding is also the matrix of a head.
    """

    default_pooling: tuple[str, ...] = ("mean",)

    def __init__(
        self, config: EncoderConfig, kernels: Kernels, layers: Iterable[nn.Module], *, tied: bool
    ) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        width = config.embedding_width
        self.embedding = Embedding(config.vocab_size, width, kernels, multiplied=tied)
        self.position = self._table(config.positions)
        self.segment = self._table(config.segments)
        self.embedding_norm: nn.Module | None = LayerNorm(width, config.norm_eps, kernels)
        self.layers = nn.ModuleList(layers)
        self.norm: nn.Module | None = None
        self.heads: Any = nn.ModuleDict()

    def _table(self, rows: int) -> Embedding | None:
        width = self.config.embedding_width
        return Embedding(rows, width, self.kernels, multiplied=False) if rows else None

    def give_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Adds heads by their names."""
        for name, head in heads.items():
            self.heads[name] = head

    @property
    def attention_layers(self) -> Sequence[AttentionLayer]:
        """Returns the layers whose attention an `AttentionLayer` describes: all of them, or none."""
        return [layer.attn.layer for layer in self.layers if isinstance(layer.attn, Attention)]

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def context_length(self) -> int:
        return self.config.context_length

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.embedding.weight.dtype
        return found

    @property
    def device(self) -> torch.device:
        return next(self.layers.parameters()).device

    @property
    def depth(self) -> int:
        return len(self.layers)

    def text_positions(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns the positions [..., length] of the tokens of whole texts: from 0 at a text's first token.

        `keep` is False at padding.
        """
        if keep is None:
            return torch.arange(tokens.shape[-1], device=tokens.device).expand(tokens.shape)
        return (keep.long().cumsum(-1) - 1).clamp(min=0)

    def text_segments(self, segments: Tensor, lengths: Sequence[int] = ()) -> Tensor:
        """Returns the rows of the table of segments for those that a tokenizer numbers.

        Tokenizers number the second text of a pair 1, also those of models with one segment.
        """
        return segments if self.segment is None else segments.clamp(max=self.config.segments - 1)

    def layer_inputs(self, positions: Tensor, segments: Tensor) -> Sequence[Any]:
        """Returns what each layer reads besides the states, such as the angles of positions [...]."""
        return [None] * len(self.layers)

    def embed(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Returns the first layer's inputs [..., width]."""
        x = self.embedded(tokens, positions, segments)
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def embedded(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Returns the sums of the embeddings [..., embedding_width]."""
        x: Tensor = self.embedding(tokens)
        if self.position is not None:
            x = self.position(positions, residual=x)
        if self.segment is not None:
            x = self.segment(segments, residual=x)
        return x

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        segments: Tensor,
        attend: TextAttend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
    ) -> Tensor:
        """Returns the last layer's states [..., width]; `EncoderModel.hidden` explains the arguments."""
        given = self.layer_inputs(positions, segments)
        return self.through_layers(self.embed(tokens, positions, segments), given, attend, taps)

    def through_layers(
        self,
        x: Tensor,
        given: Sequence[Any],
        attend: Attend,
        taps: MutableMapping[int, Tensor | None] | None,
    ) -> Tensor:
        """Returns the last layer's states of the first layer's inputs x [..., width]."""
        for index, layer in enumerate(self.layers):
            if taps and index in taps:
                taps[index] = x
            x = layer(x, given[index], attend)
        if taps and len(self.layers) in taps:
            taps[len(self.layers)] = x
        return x if self.norm is None else self.norm(x)

    def forward(self, tokens: Tensor, keep: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Returns states [B, S, width] of texts [B, S]; differentiable.

        `keep` is False at padding, which may be on either side.
        """
        if segments is None:
            segments = torch.zeros_like(tokens)
        attend = DenseAttend(self.kernels, keep, layers=self.attention_layers)
        segments = self.text_segments(segments)
        return self.hidden(tokens, self.text_positions(tokens, keep), segments, attend)
