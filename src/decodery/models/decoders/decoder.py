"""Defines the parts that decoders share: an embedding, layers on a residual stream, a norm and a head."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.models.decoders.decoder_config import DecoderConfig
from decodery.models.layers.attention import Angles, Attend, Attention, DenseAttend
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.rope import Rotary


class Decoder(nn.Module):
    """Computes the scores of next tokens; its parameters are not initialised.

    A family passes its layers, each called as `layer(x, angles, attend, *inputs)`, and its last norm; with
    `rotary` all layers rotate alike. It overrides `angles` if they differ, `embed` or `logits` if it does
    more than look up and multiply, `first_states` if more happens before the first layer, and `layer_inputs`
    if layers read more than the states.
    """

    def __init__(
        self,
        config: DecoderConfig,
        kernels: Kernels,
        layers: Iterable[nn.Module],
        norm: nn.Module,
        *,
        rotary: Rotary | None = None,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.embedding = Embedding(config.vocab_size, config.width, kernels, multiplied=config.tied_head)
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = (
            None if config.tied_head else Linear(config.width, config.vocab_size, kernels, bias=head_bias)
        )
        # Of a head that is the embedding.
        self.head_bias = (
            nn.Parameter(torch.empty(config.vocab_size)) if config.tied_head and head_bias else None
        )
        self.rotary = rotary
        # Of a model that reads texts.
        self.heads = nn.ModuleDict()

    @property
    def attention_layers(self) -> list[AttentionLayer]:
        """Returns the attention of each layer; each must have it as `attn`."""
        return [cast(Attention, layer.attn).layer for layer in self.layers]

    @property
    def kv_shape(self) -> KVShape:
        return KVShape.of(self.attention_layers)

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
        return self._plain().device

    def _plain(self) -> Tensor:
        """Returns a tensor that is never packed."""
        return next(chain(self.norm.parameters(), self.norm.buffers(), self.parameters()))

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def tied_head(self) -> bool:
        return self.head is None

    def rope_set(self, length: int) -> int:
        """Returns the set of rotary frequencies for a text of at most `length` tokens; 0 if there is one."""
        return 0 if self.rotary is None else self.rotary.rope.rope_set(length)

    def angles(
        self, positions: Tensor, length: int | None, sets: Tensor | None = None
    ) -> Sequence[Angles | None]:
        """Returns the rotary angles of each layer at positions [...]; None for a layer that does not rotate.

        `length` is that of the whole context; None: the model's own. `sets` are those of `hidden`.
        """
        angles = None if self.rotary is None else self.rotary(positions, length, sets)
        return [angles] * len(self.layers)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Returns the embeddings [..., width] of tokens [...] at positions [...]."""
        out: Tensor = self.embedding(tokens)
        return out

    def first_states(self, x: Tensor, positions: Tensor) -> Tensor:
        """Returns the first layer's input [..., width] of embeddings x at positions [...]."""
        return x

    def layer_inputs(self, tokens: Tensor, x: Tensor) -> Sequence[tuple[Tensor, ...]]:
        """Returns what each layer reads besides the states, of tokens and the first layer's input x."""
        return [()] * len(self.layers)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        length: int | None = None,
        taps: MutableMapping[int, Tensor | None] | None = None,
        embedded: tuple[Tensor, Tensor] | None = None,
        sets: Tensor | None = None,
    ) -> Tensor:
        """Returns the last layer's normalised states [..., width] of tokens [...] at positions [...].

        `attend` decides which keys a token sees, and so whether tokens are [batch, length] or a ragged
        [tokens]. `length` is that of the whole context where the rotary positions depend on it; None: the
        model's own. Each key of `taps` gets the states after that number of layers, before any last norm.
        `embedded` are indices [n] of tokens and the vectors [n, width] that replace the results of `embed`
        for them. `sets` [...] in int64 are the results of `rope_set` for the text of each token; None: that
        of `length`.
        """
        angles = self.angles(positions, length, sets)
        x = self.embed(tokens, positions)
        if embedded is not None:
            x[embedded[0]] = embedded[1]
        x = self.first_states(x, positions)
        inputs = self.layer_inputs(tokens, x)
        for index, layer in enumerate(self.layers):
            if taps and index in taps:
                taps[index] = x
            x = layer(x, angles[index], attend, *inputs[index])
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of hidden states [..., width]."""
        if self.head is None:
            return self.kernels.linear(hidden, self.embedding.weight, self.head_bias).float()
        scores: Tensor = self.head(hidden)
        return scores.float()

    def early_logits(self, states: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of states [..., width] between layers."""
        return self.logits(self.norm(states))

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns scores [B, S, vocab_size] of sequences [B, S]; differentiable.

        `keep` is False at padding. Positions count from a sequence's first token that is no padding.
        """
        length = tokens.shape[1]
        positions = torch.arange(length, device=tokens.device)
        if keep is not None:
            positions = (positions - keep.int().argmax(1, keepdim=True)).clamp(min=0)
        attend = DenseAttend(self.kernels, keep, layers=self.attention_layers)
        return self.logits(self.hidden(tokens, positions, attend, length))
