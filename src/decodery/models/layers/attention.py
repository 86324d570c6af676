"""Defines grouped-query attention, with dense and with paged keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionKind, AttentionLayer
from decodery.kernels.cache import PagedCache
from decodery.kernels.contract import Kernels, Plan
from decodery.models.layers.linear import Linear


class Angles(NamedTuple):
    """Holds the angles for `Kernels.rotary`, [..., head_dim] in float32, at the positions of one forward
    pass.

    `query` are those of queries, None if keys have the same.
    """

    cos: Tensor
    sin: Tensor
    query: tuple[Tensor, Tensor] | None = None


class Attend(Protocol):
    """Computes softmax attention of one layer's queries.

    q [..., heads, k_width], k [..., kv_heads, k_width], v [..., kv_heads, v_width], result [..., heads *
    v_width]. k and v are None where the layer has a `kv_source`.
    """

    def __call__(
        self, layer: AttentionLayer, q: Tensor, k: Tensor | None = None, v: Tensor | None = None
    ) -> Tensor: ...

    def cross(self, layer: AttentionLayer, q: Tensor) -> Tensor:
        """Computes attention over the layer's keys and values of another sequence, the source.

        Each query sees all positions of its source.
        """


class TextAttend(Attend, Protocol):
    """Computes attention within whole texts, which an engine's steps do not have."""

    def whole_texts(self, compute: WholeTexts, *parts: Tensor) -> Tensor:
        """Returns `compute` of the parts [..., features], one text or one padded batch at a time.

        It is for attention that no `AttentionLayer` describes, such as DeBERTa's.
        """


class WholeTexts(Protocol):
    """Computes from parts [B, S, ...] a result [B, S, ...] for whole texts.

    `hidden` [B or 1, 1, S, S] is True where a query must not see a key, None: it sees all.
    """

    def __call__(self, *parts: Tensor, hidden: Tensor | None) -> Tensor: ...


class DenseSource(NamedTuple):
    """Holds the sources of a batch: each layer's keys [B, T, kv_heads, k_width] and values [B, T, kv_heads,
    v_width].

    `keep` [B, T], where given, is False at padding; it is True at one position of each source at least.
    """

    layers: Mapping[int, tuple[Tensor, Tensor]]
    keep: Tensor | None = None


class DenseAttend:
    """Computes attention within whole sequences [B, S, ...], for training and scoring; differentiable.

    `keep` [B, S], where given, is False at padding, which no other position sees. `layers` are those of the
    model; they are needed where one reads the keys and values of another. Positions count from a sequence's
    first token that is no padding.
    """

    def __init__(
        self,
        kernels: Kernels,
        keep: Tensor | None = None,
        *,
        layers: Iterable[AttentionLayer] = (),
        source: DenseSource | None = None,
    ) -> None:
        self.kernels = kernels
        self.keep = None if keep is None else keep.bool()
        self.source = source
        self._read_again = {layer.kv_source for layer in layers}
        self._kv: dict[int, tuple[Tensor, Tensor]] = {}
        self._hidden: dict[AttentionKind, Tensor] = {}

    def __call__(
        self, layer: AttentionLayer, q: Tensor, k: Tensor | None = None, v: Tensor | None = None
    ) -> Tensor:
        if layer.kv_source is not None:
            k, v = self._kv[layer.kv_source]
        assert k is not None
        assert v is not None
        if layer.index in self._read_again:
            self._kv[layer.index] = k, v
        return self._attention(layer, q, k, v, self._mask(layer, q))

    def cross(self, layer: AttentionLayer, q: Tensor) -> Tensor:
        assert self.source is not None
        assert layer.kind[2:] == (None, None, False)
        assert layer.bias is None
        k, v = self.source.layers[layer.kv_index]
        keep = self.source.keep
        mask = None if keep is None else _scores(~keep.bool()[:, None, None], q)
        return self._attention(layer, q, k, v, mask)

    def whole_texts(self, compute: WholeTexts, *parts: Tensor) -> Tensor:
        hidden = None
        if self.keep is not None:
            itself = torch.eye(self.keep.shape[1], dtype=torch.bool, device=self.keep.device)
            hidden = ~(self.keep[:, None] | itself)[:, None]
        return compute(*parts, hidden=hidden)

    def _attention(
        self, layer: AttentionLayer, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> Tensor:
        return self.kernels.attention(
            q, k, v, mask, layer.scale, causal=layer.causal, softcap=layer.softcap, sinks=layer.sinks
        )

    def _mask(self, layer: AttentionLayer, q: Tensor) -> Tensor | None:
        """Returns what is added to the scores, [B or 1, heads or 1, S, S]; None: nothing but causality."""
        if layer.window is None and layer.chunk is None and layer.bias is None and self.keep is None:
            return None
        if layer.kind not in self._hidden:
            self._hidden[layer.kind] = _hidden_keys(layer.kind, q.shape[1], self.keep, q.device)
        hidden = self._hidden[layer.kind]
        if layer.bias is None:
            return _scores(hidden, q)
        added = layer.bias.scores(q.shape[1]).to(q.device)
        return added.to(torch.promote_types(added.dtype, q.dtype)).masked_fill(hidden, -math.inf)


def _scores(hidden: Tensor, q: Tensor) -> Tensor:
    return q.new_zeros(()).masked_fill(hidden, -math.inf)


def _hidden_keys(kind: AttentionKind, length: int, keep: Tensor | None, device: torch.device) -> Tensor:
    """Returns True where a query must not see a key: [B or 1, 1, S, S].

    A query always sees itself, so that padding has a finite result.
    """
    positions = torch.arange(length, device=device)[None]
    if keep is None:
        return kind.hidden(positions[:, :, None], positions[:, None])[:, None]
    positions = positions - keep.int().argmax(1, keepdim=True)
    itself = torch.eye(length, dtype=torch.bool, device=device)
    hidden = kind.hidden(positions[:, :, None], positions[:, None]) | ~(keep[:, None] | itself)
    return hidden[:, None]


Plans = Mapping[AttentionKind, Plan]


def plan_layers(
    kernels: Kernels,
    kinds: Iterable[AttentionKind],
    page_tables: Sequence[Sequence[int]],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    sources: Sequence[int] | None = None,
    keys: Sequence[int] | None = None,
) -> dict[AttentionKind, Plan]:
    """Returns a plan of one step for each kind of layer; `Kernels.plan_attention` explains the arguments."""
    return {
        kind: kernels.plan_attention(
            page_tables, starts, lengths, kind=kind, dtype=dtype, device=device, sources=sources, keys=keys
        )
        for kind in dict.fromkeys(kinds)
    }


class PagedSource(NamedTuple):
    """Holds the keys and values of the sequences that `cross` reads, and the plans over their pages."""

    cache: PagedCache
    plans: Plans


class PagedAttend:
    """Computes attention of the ragged token batch [tokens, ...] of one step over a paged cache.

    It runs under `torch.inference_mode` or `torch.no_grad`, since it is not differentiable. Each layer first
    writes the step's keys and values into the slots of the plan, in place; one with a `kv_source` writes
    nothing.
    """

    def __init__(
        self, kernels: Kernels, cache: PagedCache, plans: Plans, source: PagedSource | None = None
    ) -> None:
        self.kernels = kernels
        self.cache = cache
        self.plans = plans
        self.source = source

    def __call__(
        self, layer: AttentionLayer, q: Tensor, k: Tensor | None = None, v: Tensor | None = None
    ) -> Tensor:
        plan, cached = self.plans[layer.kind], self.cache.layers[layer.kv_index]
        if layer.kv_source is None:
            assert k is not None
            assert v is not None
            self.kernels.write_kv(*cached, plan, k, v)
        return self.kernels.paged_attention(q, *cached, plan, layer)

    def cross(self, layer: AttentionLayer, q: Tensor) -> Tensor:
        assert self.source is not None
        cache, plans = self.source
        return self.kernels.paged_attention(q, *cache.layers[layer.kv_index], plans[layer.kind], layer)


class PackedAttend(PagedAttend):
    """Computes attention of whole texts that lie one behind another: [tokens, ...] of the given lengths.

    All layers use the same pages, one layer at a time.
    """

    def __init__(self, kernels: Kernels, cache: PagedCache, plans: Plans, lengths: Sequence[int]) -> None:
        super().__init__(kernels, cache, plans)
        self.lengths = lengths

    def whole_texts(self, compute: WholeTexts, *parts: Tensor) -> Tensor:
        """Returns `compute` of each text alone, so that no other text can change its bits."""
        texts = zip(*(part.split_with_sizes(list(self.lengths)) for part in parts), strict=True)
        # Copies, whose memory is aligned alike wherever the text lies.
        found = [compute(*(part.clone()[None] for part in text), hidden=None)[0] for text in texts]
        return torch.cat(found)


class Attention(nn.Module):
    """Computes grouped-query self-attention; q, k and v are one linear map.

    `head_norms`, where given, normalise each head of q and of k before they are rotated (Henry et al.,
    Query-Key Normalization for Transformers, 2020). `clip`, where given, is the largest magnitude of the
    elements of q, k and v, with `clip_normed` of q and k after these norms. `out_bias` None is `bias`. With
    `sinks` each head has one, as `AttentionLayer` explains. Ainslie et al., GQA: Training Generalized
    Multi-Query Transformer Models (2023).
    """

    def __init__(
        self,
        layer: AttentionLayer,
        width: int,
        kernels: Kernels,
        *,
        bias: bool = False,
        out_bias: bool | None = None,
        head_norms: tuple[nn.Module, nn.Module] | None = None,
        clip: float | None = None,
        clip_normed: bool = False,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        assert layer.k_width == layer.v_width
        self.layer = layer
        self.kernels = kernels
        self.clip = clip
        self.clip_normed = clip_normed
        self.qkv = Linear(width, (layer.heads + 2 * layer.kv_heads) * layer.k_width, kernels, bias=bias)
        self.q_norm: nn.Module | None
        self.k_norm: nn.Module | None
        self.q_norm, self.k_norm = head_norms or (None, None)
        self.sinks = nn.Parameter(torch.empty(layer.heads)) if sinks else None
        outputs_bias = bias if out_bias is None else out_bias
        self.out = Linear(layer.heads * layer.v_width, width, kernels, bias=outputs_bias)

    def forward(
        self, x: Tensor, angles: Angles | None, attend: Attend, residual: Tensor | None = None
    ) -> Tensor:
        """Computes the attention of states x [..., width], plus `residual`.

        Without `angles`, queries and keys are not rotated.
        """
        heads, kv_heads = self.layer.heads, self.layer.kv_heads
        qkv: Tensor = self.qkv(x)
        clipped = qkv if self.clip is None else self.kernels.clip(qkv, self.clip)
        shape, sizes = (*x.shape[:-1], -1, self.layer.k_width), (heads + kv_heads, kv_heads)
        qk = (qkv if self.clip_normed else clipped).view(shape).split_with_sizes(sizes, -2)[0]
        v = clipped.view(shape).split_with_sizes(sizes, -2)[1]
        q, k = self._queries_and_keys(qk, angles)
        layer = self.layer if self.sinks is None else replace(self.layer, sinks=self.sinks)
        out: Tensor = self.out(attend(layer, q, k, v), residual)
        return out

    def _queries_and_keys(self, qk: Tensor, angles: Angles | None) -> Sequence[Tensor]:
        sizes = self.layer.heads, self.layer.kv_heads
        normed = self.q_norm is not None and self.k_norm is not None
        if not normed and (angles is None or angles.query is None):
            rotated = qk if angles is None else self.kernels.rotary(qk, angles.cos, angles.sin)
            return rotated.split_with_sizes(sizes, -2)
        q, k = qk.split_with_sizes(sizes, -2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
            if self.clip is not None and self.clip_normed:
                q, k = self.kernels.clip(q, self.clip), self.kernels.clip(k, self.clip)
        if angles is None:
            return q, k
        keys = angles.cos, angles.sin
        return self.kernels.rotary(q, *(angles.query or keys)), self.kernels.rotary(k, *keys)
