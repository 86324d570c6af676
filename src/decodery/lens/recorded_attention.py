"""Computes attention as an engine does, and records how the last query divides it among the keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.attention_layer import AttentionLayer
from decodery.models.contract import CausalModel
from decodery.models.layers.attention import PagedAttend, plan_layers


class RecordedAttend(PagedAttend):
    """Computes attention of one text [tokens, ...] over pages of its own, and keeps the last query's shares.

    `shares` has one tensor [heads, tokens] in float32 for each layer that has run, in their order.
    """

    def __init__(self, model: CausalModel, length: int, kv_dtype: torch.dtype) -> None:
        layers = model.attention_layers
        pages = -(-length // PAGE_SIZE)
        cache = model.kv_shape.allocate(
            pages, kv_dtype, model.device, whole_pages=model.kernels.takes_page_strides()
        )
        table = [list(range(pages))]
        kinds = [layer.kind for layer in layers]
        plans = plan_layers(
            model.kernels, kinds, table, [0], [length], dtype=model.dtype, device=model.device
        )
        super().__init__(model.kernels, cache, plans)
        self.shares: list[Tensor] = []
        self._read_again = {layer.kv_source for layer in layers}
        self._keys: dict[int, Tensor] = {}

    def __call__(
        self, layer: AttentionLayer, q: Tensor, k: Tensor | None = None, v: Tensor | None = None
    ) -> Tensor:
        keys = self._keys[layer.kv_index] if k is None else k
        if layer.index in self._read_again and k is not None:
            self._keys[layer.index] = k.clone()
        self.shares.append(last_shares(layer, q[-1], keys))
        return super().__call__(layer, q, k, v)


def last_shares(layer: AttentionLayer, q: Tensor, k: Tensor) -> Tensor:
    """Returns the softmax of the last query's scores: q [H, D], k [T, Hkv, D]; result [H, T] in float32.

    A sink's share is left out, so that a row then sums to less than 1.
    """
    groups = q.float().view(k.shape[1], -1, k.shape[2])
    scores = torch.einsum("hgd,thd->hgt", groups, k.float()).flatten(0, 1) * layer.scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    keys = torch.arange(len(k), device=k.device)
    if layer.bias is not None:
        scores = scores + layer.bias.table[:, layer.bias.columns(keys[-1], keys)].to(k.device)
    scores = scores.masked_fill(layer.kind.hidden(keys[-1], keys), -math.inf)
    if layer.sinks is None:
        return scores.softmax(-1)
    return torch.cat((scores, layer.sinks.float()[:, None]), -1).softmax(-1)[:, :-1]
