"""Defines the outputs of encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Activation, Kernels
from decodery.models.contract import Head, Reads
from decodery.models.encoders.encoder_config import EncoderConfig
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.norm import LayerNorm

HeadActivation: TypeAlias = Literal["tanh", "linear"] | Activation
"""An activation of a head; linear: x itself."""


class MaskedLM(nn.Module):
    """Computes the scores of all tokens at each place from a transformed state.

    The scores are `norm(activation(dense(x))) @ matrix.T + bias`. The matrix is the `embedding` if that is
    given, else its own. Without a `norm` the state is not transformed. Devlin et al., BERT (2019).
    """

    reads: Reads = "tokens"

    def __init__(
        self,
        width: int,
        vocab_size: int,
        kernels: Kernels,
        *,
        norm: nn.Module | None,
        norm_width: int | None = None,
        activation: Activation = "gelu",
        embedding: Embedding | None,
        dense_bias: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.labels = vocab_size
        self.activation = activation
        inner = norm_width or width
        self.dense = None if norm is None else Linear(width, inner, kernels, bias=dense_bias)
        self.norm = norm
        self.embedding = embedding
        self.out = None if embedding is not None else Linear(inner, vocab_size, kernels)
        self.bias = nn.Parameter(torch.empty(vocab_size)) if bias else None

    def forward(self, states: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of states [..., width]."""
        if self.dense is not None and self.norm is not None:
            states = self.norm(self.kernels.activation(self.dense(states), self.activation))
        matrix = self.embedding if self.out is None else self.out
        assert matrix is not None
        return self.kernels.linear(states, matrix.weight, self.bias).float()


class Classes(nn.Module):
    """Computes `out(norm(activation(dense(x))))`: the scores of classes, of answers, or of places in a text.

    `dense` and `norm` may be missing.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        kernels: Kernels,
        *,
        reads: Reads,
        dense: HeadActivation | None = None,
        dense_bias: bool = True,
        dense_width: int | None = None,
        norm: nn.Module | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.labels = labels
        self.reads = reads
        self.activation = dense
        inner = dense_width or width
        self.dense = None if dense is None else Linear(width, inner, kernels, bias=dense_bias)
        self.norm = norm
        self.out = Linear(width if dense is None else inner, labels, kernels, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        """Returns scores [..., labels] in float32 of states [..., width]."""
        if self.dense is not None and self.activation is not None:
            states = activated(self.dense(states), self.activation, self.kernels)
        if self.norm is not None:
            states = self.norm(states)
        scores: Tensor = self.out(states)
        return scores.float()


def transformed_masked_lm(
    config: EncoderConfig, kernels: Kernels, embedding: Embedding, activation: Activation
) -> MaskedLM:
    """Returns BERT's head of masked tokens, whose matrix is the embedding if that is multiplied too."""
    return MaskedLM(
        config.width,
        config.vocab_size,
        kernels,
        norm=LayerNorm(config.embedding_width, config.norm_eps, kernels),
        norm_width=config.embedding_width,
        activation=activation,
        embedding=embedding if embedding.multiplied else None,
    )


def activated(x: Tensor, name: HeadActivation, kernels: Kernels) -> Tensor:
    """Applies the activation to each element of x [...]."""
    if name == "linear":
        return x
    return torch.tanh(x) if name == "tanh" else kernels.activation(x, name)


def task_heads(
    head: Head,
    labels: int,
    *,
    masked_lm: Callable[[], nn.Module],
    whole: Callable[[int], nn.Module],
    each: Callable[[int], nn.Module],
) -> Mapping[str, nn.Module]:
    """Returns the head of an architecture by its name, none for "states".

    `whole` and `each` make the scores of a number of classes, of a text and of each token.
    """
    match head:
        case "states":
            return {}
        case "masked_lm":
            return {head: masked_lm()}
        case "classes":
            return {head: whole(labels)}
        case "choices":
            return {head: whole(1)}
        case "token_classes":
            return {head: each(labels)}
        case "spans":
            return {head: each(2)}
    raise AssertionError(f"no such family has the head {head}")
