"""Defines XLNet: a post-norm encoder whose scores depend on distances, with a memory of an earlier segment.

Yang et al., XLNet: Generalized Autoregressive Pretraining for Language Understanding (2019); Dai et al.,
Transformer-XL (2019). The paper's second stream of states is that of the masked tokens, which no other token
sees. So both streams are one here.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import (
    COUNT,
    FLAG,
    NO_KEY,
    ConfigTable,
    Fixed,
    Setting,
    Source,
    choice,
    missing_or_null,
    quotient,
)
from decodery.models.contract import Family, Head, Names, Reads
from decodery.models.encoders.encoder import Encoder
from decodery.models.encoders.encoder_config import (
    ACTIVATIONS,
    HEAD_ACTIVATIONS,
    MATRICES,
    EncoderConfig,
    fields,
)
from decodery.models.encoders.heads import Classes, HeadActivation, MaskedLM, task_heads
from decodery.models.encoders.names import Modules, encoder_names
from decodery.models.layers.attention import DenseAttend, TextAttend
from decodery.models.layers.blocks import PostNormBlock
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.relative_scores import at_distances, by_head, longest, mixed
from decodery.weights.names import Rule, merge, rename
from decodery.weights.transforms import Transform

HEADS: tuple[Head, ...] = ("states", "masked_lm", "classes", "token_classes", "spans", "choices")
CONTEXT = 4096
"""The number of tokens that are read at once: the model has no limit, but memory for all scores has."""


@dataclass(frozen=True)
class XLNetConfig(EncoderConfig):
    """Holds the sizes and values of one XLNet.

    `causal`: a token sees none after it, and with `same_length` as many before it as the memory has.
    `farthest` is the distance that larger ones count as, None without a bound. `memory` is the number of
    states that are kept of earlier segments, None for all, and `reused` that of a segment that are added.
    """

    causal: bool
    same_length: bool
    farthest: int | None
    memory: int | None
    reused: int | None
    reads: Reads
    summary_activation: HeadActivation


class Surroundings(NamedTuple):
    """Holds what a layer reads besides the states.

    `vectors` [rows, width] are those of the distances from the largest to the smallest, `segments` [...] the
    segments of the tokens. `memory` [B, M, width] are the layer's inputs of an earlier segment, or None.
    `masked` [...] is True at masked tokens, None if there are none.
    """

    vectors: Tensor
    segments: Tensor
    memory: Tensor | None
    masked: Tensor | None


class RelativeAttention(nn.Module):
    """Computes attention whose scores add up to three parts: by content, by distance and by segment.

    Each part has a bias of its own that is added to the query.
    """

    def __init__(self, config: XLNetConfig, kernels: Kernels) -> None:
        super().__init__()
        width, inner = config.width, config.heads * config.head_dim
        self.config = config
        self.qkv = Linear(width, 3 * inner, kernels)
        self.distance_key = Linear(width, inner, kernels)
        self.out = Linear(inner, width, kernels)
        self.content_bias = nn.Parameter(torch.empty(config.heads, config.head_dim))
        self.distance_bias = nn.Parameter(torch.empty(config.heads, config.head_dim))
        self.segment_bias = nn.Parameter(torch.empty(config.heads, config.head_dim))
        # The keys of tokens in the query's segment, and in another one.
        self.segment_keys = nn.Parameter(torch.empty(2, config.heads, config.head_dim))

    def forward(
        self, x: Tensor, given: Surroundings, attend: TextAttend, residual: Tensor | None = None
    ) -> Tensor:
        """Computes the attention of states x [..., width], plus `residual`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        remembered = None if given.memory is None else self.qkv(given.memory).chunk(3, -1)[1:]
        compute = partial(self._attention, self.distance_key(given.vectors), remembered)
        masked = () if given.masked is None else (given.masked,)
        out: Tensor = self.out(attend.whole_texts(compute, q, k, v, given.segments, *masked), residual)
        return out

    def _attention(
        self,
        far: Tensor,
        remembered: tuple[Tensor, Tensor] | None,
        *parts: Tensor,
        hidden: Tensor | None,
    ) -> Tensor:
        qkv, (segments, *masked) = list(parts[:3]), parts[3:]
        heads, length = self.config.heads, segments.shape[1]
        before = 0
        if remembered is not None:
            before = remembered[0].shape[1]
            qkv[1:] = (torch.cat(both, 1) for both in zip(remembered, qkv[1:], strict=True))
        q, k, v = (by_head(part, heads) for part in qkv)
        scores = self._biased(q, self.content_bias) @ k.transpose(-1, -2)
        # The rows from the largest distance in this text down to that of its first query and last key.
        start = (len(far) - before + 1) // 2 - length
        rows = by_head(far[start : start + before + 2 * length - 1].clone(), heads)
        distant = self._biased(q, self.distance_bias) @ rows.transpose(-1, -2)
        scores = scores + at_distances(distant.contiguous(), before + length)
        if bool((segments != segments[:, :1]).any()) or (before and bool(segments.any())):
            scores = scores + self._by_segment(q, segments, before)
        if masked:
            unseen = masked[0][:, None, None]
            hidden = unseen if hidden is None else hidden | unseen
        return mixed(scores, v, self._hidden(length, before, hidden, q.device))

    def _biased(self, q: Tensor, bias: Tensor) -> Tensor:
        scaled: Tensor = (q + bias[:, None]) * self.config.head_dim**-0.5
        return scaled

    def _by_segment(self, q: Tensor, segments: Tensor, before: int) -> Tensor:
        """Returns what a key of another segment adds to the scores, beyond one of the same segment."""
        keys = torch.cat((segments.new_zeros(len(segments), before), segments), 1)
        differ = segments[:, None, :, None] != keys[:, None, None]
        same, other = self.segment_keys
        added: Tensor = self._biased(q, self.segment_bias) @ (other - same)[..., None] * differ
        return added

    def _hidden(self, length: int, before: int, hidden: Tensor | None, device: torch.device) -> Tensor | None:
        """Returns True where a query must not see a key, of the memory or of the text; None: it sees all."""
        if hidden is not None and before:
            hidden = torch.cat((hidden.new_zeros(*hidden.shape[:-1], before), hidden), -1)
        if not self.config.causal:
            return hidden
        query = torch.arange(length, device=device)[:, None]
        key = torch.arange(before + length, device=device)
        causal = key > query + before
        if self.config.same_length:
            causal = causal | (key < query)
        return causal if hidden is None else causal | hidden


class XLNet(Encoder):
    """Defines an XLNet over the given kernels; its parameters are not initialised.

    `mask_token` is the id of the token that stands for a masked one, in a model with the head of these. It is
    None until the tokenizer tells it: the id is then read like any other.
    """

    config: XLNetConfig
    mask_token: int | None = None

    def __init__(self, config: XLNetConfig, kernels: Kernels, head: Head) -> None:
        layers = [self._layer(config, kernels) for _ in range(config.layers)]
        super().__init__(config, kernels, layers, tied=head == "masked_lm" and config.tied_head)
        self.embedding_norm = None
        # The first layer's input in place of the embedding of a masked token.
        self.mask_state = nn.Parameter(torch.empty(config.width)) if head == "masked_lm" else None
        scores = partial(Classes, config.width, kernels=kernels)
        self.give_heads(
            task_heads(
                head,
                config.labels,
                masked_lm=self._masked_lm,
                whole=lambda labels: scores(labels, reads=config.reads, dense=config.summary_activation),
                each=lambda labels: scores(labels, reads="tokens"),
            )
        )

    @staticmethod
    def _layer(config: XLNetConfig, kernels: Kernels) -> PostNormBlock:
        width, eps = config.width, config.norm_eps
        return PostNormBlock(
            RelativeAttention(config, kernels),
            LayerNorm(width, eps, kernels),
            PlainMLP(width, config.mlp_width, config.activation, kernels),
            LayerNorm(width, eps, kernels),
        )

    def _masked_lm(self) -> nn.Module:
        config = self.config
        embedding = self.embedding if self.embedding.multiplied else None
        return MaskedLM(config.width, config.vocab_size, self.kernels, norm=None, embedding=embedding)

    def _surroundings(
        self,
        positions: Tensor,
        segments: Tensor,
        memory: Sequence[Tensor] | None,
        masked: Tensor | None,
    ) -> Sequence[Surroundings]:
        """Returns what each layer reads."""
        length = longest(positions)
        before = 0 if memory is None else memory[0].shape[1]
        distances = torch.arange(before + length - 1, -length, -1, device=positions.device)
        vectors = sinusoids(self.config, distances).to(self.dtype)
        if memory is None:
            return [Surroundings(vectors, segments, None, masked)] * self.depth
        return [Surroundings(vectors, segments, states, masked) for states in memory]

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        segments: Tensor,
        attend: TextAttend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
        memory: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Returns the last layer's states [..., width]; `EncoderModel.hidden` explains the arguments.

        `memory` are the inputs [B, M, width] of each layer of an earlier segment, for texts [B, S].
        """
        x, masked = self.embed(tokens, positions, segments), None
        if self.mask_state is not None and self.mask_token is not None:
            masked = tokens == self.mask_token
            x = torch.where(masked[..., None], self.mask_state, x)
        given = self._surroundings(positions, segments, memory, masked)
        return self.through_layers(x, given, attend, taps)

    def segment_states(
        self, tokens: Tensor, memory: Sequence[Tensor] | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the states [B, S, width] of the next segments [B, S] of texts, and the memory after them.

        `memory` is that of the segments before, None at the beginning. No gradient flows through it.
        """
        segments = torch.zeros_like(tokens) if segments is None else segments
        taps: dict[int, Tensor | None] = dict.fromkeys(range(self.depth))
        attend = DenseAttend(self.kernels)
        positions = self.text_positions(tokens)
        states = self.hidden(tokens, positions, segments, attend, taps=taps, memory=memory)
        inputs = [tap[:, : self.config.reused] for tap in taps.values() if tap is not None]
        if memory is not None:
            inputs = [torch.cat(both, 1) for both in zip(memory, inputs, strict=True)]
        kept = self.config.memory or 0
        return states, [each[:, -kept:].detach() for each in inputs]


def sinusoids(config: XLNetConfig, distances: Tensor) -> Tensor:
    """Returns the vectors [n, width] of distances [n] in float32: sines, then cosines."""
    if config.farthest is not None:
        distances = distances.clamp(-config.farthest, config.farthest)
    steps = torch.arange(0, config.width, 2, device=distances.device).float()
    angles = distances.float()[:, None] * (1 / torch.pow(10000, steps / config.width))
    return torch.cat((angles.sin(), angles.cos()), -1)


def _by_inputs(heads: int) -> Transform:
    """Returns the transform of matrices that are stored as [inputs, heads, head_dim]."""
    return Transform(
        lambda stored: stored.flatten(1).transpose(0, 1).contiguous(),
        lambda ours: ours.transpose(0, 1).reshape(ours.shape[1], heads, -1),
    )


def _by_outputs(heads: int) -> Transform:
    """Returns the transform of matrices that are stored as [outputs, heads, head_dim]."""
    return Transform(lambda stored: stored.flatten(1), lambda ours: ours.reshape(len(ours), heads, -1))


ONE_ROW = Transform(torch.flatten, lambda ours: ours.view(1, 1, -1))
"""The stored vector is [1, 1, width]."""


def _is_even(source: Source, name: str) -> None:
    if source[name] % 2:
        raise source.error(name, "even, since half of a distance's vector are sines")


XLNET_FIELDS = fields(
    vocab_size=Setting(COUNT, ("vocab_size", "n_token")),
    width=Setting(COUNT, ("d_model", "hidden_size"), checks=(_is_even,)),
    layers=Setting(COUNT, ("n_layer", "num_hidden_layers")),
    heads=Setting(COUNT, ("n_head", "num_attention_heads")),
    head_dim=Setting(COUNT, "d_head", default=quotient("width", "heads")),
    mlp_width=Setting(COUNT, "d_inner"),
    context_length=Setting(NO_KEY, default=lambda source: CONTEXT),
    positions=Setting(NO_KEY, default=0),
    segments=Setting(NO_KEY, default=0),
    activation=Setting(ACTIVATIONS, "ff_activation", default="gelu"),
    causal=Setting(choice({"bi": False, "uni": True}), "attn_type", default=False),
    same_length=Setting(FLAG, "same_length", default=False),
    farthest=Setting(COUNT, "clamp_len", default=None, none=(-1, 0)),
    memory=Setting(COUNT, "mem_len", default=512, none=(None, 0)),
    reused=Setting(COUNT, "reuse_len", default=None, none=(None, 0)),
    reads=Setting(
        choice({"last": "last", "first": "first", "mean": "mean", "cls_index": "last"}),
        "summary_type",
        default="last",
    ),
    summary_activation=Setting(
        HEAD_ACTIVATIONS,
        "summary_activation",
        default=missing_or_null("summary_activation", "tanh", lambda source: "linear"),
    ),
)
PROJECTED = Fixed(
    hub="summary_use_proj",
    value=True,
    wanted="true: scores of a state without the map before are not supported",
)
TO_WIDTH = Fixed(
    hub="summary_proj_to_labels", value=False, wanted="false: the map before the scores is square"
)

PREFIX = "transformer."
LAYER = "layer.{i}."
ATTENTION = f"{LAYER}rel_attn."
BACKBONE: Modules = {
    "embedding": "word_embedding",
    "layers.{i}.attn_norm": f"{ATTENTION}layer_norm",
    "layers.{i}.mlp.up": f"{LAYER}ff.layer_1",
    "layers.{i}.mlp.down": f"{LAYER}ff.layer_2",
    "layers.{i}.mlp_norm": f"{LAYER}ff.layer_norm",
}
VECTORS = {
    "content_bias": "r_w_bias",
    "distance_bias": "r_r_bias",
    "segment_bias": "r_s_bias",
    "segment_keys": "seg_embed",
}
OUTPUTS: Modules = {
    "heads.masked_lm.out": "lm_loss",
    "heads.classes.dense": "sequence_summary.summary",
    "heads.choices.dense": "sequence_summary.summary",
    "heads.classes.out": "logits_proj",
    "heads.choices.out": "logits_proj",
    "heads.token_classes.out": "classifier",
    "heads.spans.out": "qa_outputs",
}


def _attention_rules(config: XLNetConfig, prefix: str) -> Iterator[Rule]:
    ours, stored = "layers.{i}.attn.", f"{prefix}{ATTENTION}"
    turned = _by_inputs(config.heads)
    yield merge(f"{ours}qkv.weight", [f"{stored}{name}" for name in "qkv"], [turned] * 3)
    yield rename(f"{ours}distance_key.weight", f"{stored}r", turned)
    yield rename(f"{ours}out.weight", f"{stored}o", _by_outputs(config.heads))
    for name, theirs in VECTORS.items():
        yield rename(f"{ours}{name}", f"{stored}{theirs}")


def hub_names(config: XLNetConfig) -> Names:
    """Returns the names in a hub folder."""
    names = encoder_names(
        PREFIX,
        BACKBONE,
        OUTPUTS,
        ignored=("*mask_emb", "lm_loss.*"),
        tied=config.tied_head,
        further=[
            *(rule for prefix in (PREFIX, "") for rule in _attention_rules(config, prefix)),
            rename("mask_state", f"{PREFIX}mask_emb", ONE_ROW),
        ],
    )
    return replace(names, delicate=(*names.delicate, "*word_embedding.weight"))


XLNET = Family(
    name="xlnet",
    config=ConfigTable(XLNetConfig, fields=XLNET_FIELDS, fixed=(PROJECTED, TO_WIDTH), matrices=MATRICES),
    build={head: partial(XLNet, head=head) for head in HEADS},
    hub_names=hub_names,
)
