"""Reads whole texts with a decoder: its states are vectors, and a head gives classes or the next token."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from decodery.errors import ModelError
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.models.contract import CausalModel, Head, Names, OutputHead, Reads
from decodery.models.decoders.decoder import Decoder
from decodery.models.encoders.heads import Classes
from decodery.models.layers.attention import Attention, TextAttend
from decodery.weights.names import Rule, rename

HUB_SCORE, GGUF_SCORE = "score.weight", "cls.output.weight"
"""The stored matrix of a decoder's head of classes, in a hub folder and in a GGUF file."""


class NextToken:
    """Computes the scores of the token behind each place of a text."""

    reads: Reads = "tokens"

    def __init__(self, model: CausalModel) -> None:
        self.model = model
        self.labels = model.vocab_size

    def __call__(self, states: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of states [..., width]."""
        return self.model.logits(states)


class TextReader:
    """Reads whole texts with a decoder, as `EncoderModel` describes it.

    A state knows of the tokens before it alone, so the last one is that of the text. `default_pooling` is
    empty if the model was not trained for vectors: a caller must choose then.
    """

    def __init__(self, model: CausalModel, heads: Mapping[str, OutputHead], *, embeds: bool) -> None:
        self.model = model
        self.heads = heads
        self.default_pooling: tuple[str, ...] = ("lasttoken",) if embeds else ()
        self._two_sets = model.rope_set(model.context_length) > 0

    @property
    def kernels(self) -> Kernels:
        return self.model.kernels

    @property
    def attention_layers(self) -> Sequence[AttentionLayer]:
        return self.model.attention_layers

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    @property
    def width(self) -> int:
        return self.model.width

    @property
    def context_length(self) -> int:
        return self.model.context_length

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def depth(self) -> int:
        return self.model.depth

    def text_positions(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns the positions [..., length] of the tokens of whole texts: from 0 at a text's first token.

        `keep` is False at padding.
        """
        if keep is None:
            return torch.arange(tokens.shape[-1], device=tokens.device).expand(tokens.shape)
        return (keep.long().cumsum(-1) - 1).clamp(min=0)

    def text_segments(self, segments: Tensor, lengths: Sequence[int]) -> Tensor:
        """Returns the set of rotary frequencies of each token's text, since decoders know no segments."""
        sets = [self.model.rope_set(length) for length in lengths]
        each = torch.tensor(sets, device=segments.device)
        return each.repeat_interleave(torch.tensor(lengths, device=segments.device))

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        segments: Tensor,
        attend: TextAttend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
    ) -> Tensor:
        """Returns the normalised states [..., width] of the last layer; `EncoderModel.hidden` explains it.

        `segments` are those of `text_segments`.
        """
        sets = segments if self._two_sets else None
        return self.model.hidden(tokens, positions, attend, taps=taps, sets=sets)


def reader_of(model: CausalModel, head: Head) -> TextReader:
    """Returns a decoder that `build_reading` built, or one that continues texts, as a reader of texts."""
    heads: Mapping[str, OutputHead]
    if head in ("causal", "next_token"):
        heads = {"next_token": NextToken(model)}
    else:
        heads = cast(Mapping[str, OutputHead], cast(Decoder, model).heads)
    return TextReader(model, heads, embeds=head in ("states", "classes"))


def build_reading(model: nn.Module, head: Head, labels: int, *, causal: bool) -> nn.Module:
    """Returns a decoder with the head of a reader: for "states" and "classes" without the scores of tokens.

    If not `causal`, each token sees all others. Raises `ModelError` for such a model with windows.
    """
    assert isinstance(model, Decoder)
    if not causal:
        _see_all(model)
    if head != "next_token":
        model.head = model.head_bias = None
        model.embedding.multiplied = False
    if head == "classes":
        model.heads["classes"] = Classes(model.width, labels, model.kernels, reads="last", bias=False)
    return model


def _see_all(model: Decoder) -> None:
    for layer in model.layers:
        attention = cast(Attention, layer.attn)
        if attention.layer.window is not None or attention.layer.chunk is not None:
            raise ModelError(
                "config.json says is_causal: false, and that layers see a window of tokens: both together"
                " are not supported"
            )
        attention.layer = replace(attention.layer, causal=False)


def reading_names(names: Names, *, is_hub: bool) -> Names:
    """Returns the names of a decoder's tensors in a checkpoint of a reader.

    A model without a head is stored without the prefix that others have ("model." or "transformer."). Scores
    of tokens may be stored, and are left out where the model has none. The head of classes is `HUB_SCORE` or
    `GGUF_SCORE`.
    """
    embedding = next(rule for rule in names.rules if rule.target == "embedding.weight").sources[0]
    prefix = embedding.partition(".")[0] + "." if is_hub else ""
    score = HUB_SCORE if is_hub else GGUF_SCORE
    head = [rule for rule in names.rules if rule.target in ("head.weight", "head.bias", "head_bias")]
    return replace(
        names,
        rules=(*names.rules, *_without(names.rules, prefix), rename("heads.classes.out.weight", score)),
        ignored=(*_both(names.ignored, prefix), *(source for rule in head for source in rule.sources)),
        delicate=(*_both(names.delicate, prefix), score),
        exact=_both(names.exact, prefix),
        tied=(),
    )


def _without(rules: Sequence[Rule], prefix: str) -> list[Rule]:
    """Returns the rules whose sources all have a prefix, without it."""
    found = []
    for rule in rules:
        if prefix and all(source.startswith(prefix) for source in rule.sources):
            sources = tuple(source.removeprefix(prefix) for source in rule.sources)
            found.append(replace(rule, sources=sources))
    return found


def _both(patterns: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*patterns, *(pattern.removeprefix(prefix) for pattern in patterns))))
