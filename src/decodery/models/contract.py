"""Declares what a family of models offers: its config, its models, and how checkpoints store them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.models.config_reader import ConfigTable
from decodery.models.layers.attention import Attend, TextAttend
from decodery.weights.names import Rule

Head = Literal[
    "causal",
    "states",
    "masked_lm",
    "next_sentence",
    "pretraining",
    "classes",
    "token_classes",
    "spans",
    "choices",
    "replaced",
    "next_token",
]
"""A model's output. "causal": the scores of the next token, to continue texts; the others are of models that
read texts. "states": the hidden states alone. "next_token": the scores of the next token, of a decoder that
only reads. "masked_lm": the scores of each token. "next_sentence": whether the second text of a pair
follows the first. "pretraining": both of these. "classes": the scores of a text's classes.
"token_classes": those of each token. "spans": the scores of each token to begin and to end an answer.
"choices": the score of one answer of several. "replaced": whether each token replaced another."""
Reads = Literal["tokens", "first", "last", "mean"]
"""The states that a head reads: those of each token, of a text's first or last token, or their mean."""


class Config(Protocol):
    """Lists the fields that the config of every family has; it is a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def vocab_size(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def tied_head(self) -> bool: ...

    @property
    def extensible(self) -> bool:
        """True if the model can be opened for a longer context than `context_length`."""


class TextModel(Protocol):
    """Lists what is common to all models of texts."""

    @property
    def kernels(self) -> Kernels: ...

    @property
    def attention_layers(self) -> Sequence[AttentionLayer]: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def depth(self) -> int:
        """Returns the number of layers."""


class CausalModel(TextModel, Protocol):
    """Lists the attributes and methods of a model that an engine uses."""

    @property
    def kv_shape(self) -> KVShape: ...

    @property
    def tied_head(self) -> bool:
        """True if the head is the embedding."""

    def rope_set(self, length: int) -> int:
        """Returns the set of rotary frequencies for a text of at most `length` tokens.

        It is 0, or 1 for a long text of a model that has two sets.
        """

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
        embedded: tuple[Tensor, Tensor] | None = None,
        sets: Tensor | None = None,
    ) -> Tensor:
        """Returns the last layer's normalised states [..., width] of tokens [...] at positions [...].

        Each key of `taps` gets the states after that number of layers, before any last norm. `embedded` are
        indices [n] of tokens and the vectors [n, width] that replace their embeddings. `sets` [...] in int64
        are the results of `rope_set` for the text of each token; None: for a text that fills the context.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of hidden states [..., width]."""

    def early_logits(self, states: Tensor) -> Tensor:
        """Returns the same of states [..., width] between layers: they get the last norm first."""


class OutputHead(Protocol):
    """Computes the scores of one task from the states of an encoder."""

    @property
    def reads(self) -> Reads: ...

    @property
    def labels(self) -> int:
        """Returns the number of scores, for a head of masked tokens that of the vocabulary."""
        ...

    def __call__(self, states: Tensor) -> Tensor:
        """Returns scores [..., labels] in float32 of states [..., width], those that `reads` names."""


class EncoderModel(TextModel, Protocol):
    """Lists the attributes and methods of a model that reads whole texts, as `decodery.encoding` uses them.

    `heads` are its outputs by their names among `Head`; "states" and "pretraining" name none.
    `default_pooling` makes the vectors of a folder that does not say how; empty: the caller must.
    """

    @property
    def default_pooling(self) -> tuple[str, ...]: ...

    @property
    def heads(self) -> Mapping[str, OutputHead]: ...

    def text_positions(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns the positions [..., length] of the tokens [..., length] of whole texts.

        `keep` [..., length] is False at padding.
        """

    def text_segments(self, segments: Tensor, lengths: Sequence[int]) -> Tensor:
        """Returns the segments [...] that the model has of those that a tokenizer numbers.

        `lengths` are the numbers of tokens of the texts that lie one behind another, or of the rows of a
        batch.
        """

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        segments: Tensor,
        attend: TextAttend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
    ) -> Tensor:
        """Returns the last layer's states [..., width] of tokens [...] at positions [...].

        `segments` [...] number the texts of a pair from 0. Each key of `taps` gets the states after that
        number of layers: 0 are the first layer's inputs.
        """


@runtime_checkable
class ReadsMask(Protocol):
    """Marks an encoder that treats masked tokens otherwise than others, and so must know their id."""

    mask_token: int | None


@dataclass(frozen=True)
class Names:
    """Holds how one format names a model's tensors.

    `ignored` are glob patterns of tensors that may be left unused. `delicate` are those of matrices that are
    held in 8 bits if others have 4, and `exact` of those that are held as stored. `tied` are the
    tensors of the embedding and of the head if they are one parameter, for which one of them is enough.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    delicate: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class Family(Generic[ConfigT]):
    """Describes a kind of model: its config, its modules by head, and its tensors' names in each format.

    `build` has a function for each head that the family offers; the parameters of the module that it returns
    are not initialised. A module for the head "causal" is a `CausalModel`, the others are `EncoderModel`s. A
    family that offers "causal" also reads texts, as `TextReader` does.
    `gguf` is the architecture of the
    GGUF files that are written, and `gguf_names` has their names; both are None if the format has none for
    this family.
    """

    name: str
    config: ConfigTable[ConfigT]
    build: Mapping[Head, Callable[[ConfigT, Kernels], nn.Module]]
    hub_names: Callable[[ConfigT], Names]
    gguf_names: Callable[[ConfigT], Names] | None = None
    gguf: str | None = None
