"""Converts stored tensors to the form of a module's parameters, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Holds a conversion of stored tensors and its inverse.

    `load` returns our form of a stored tensor, and `store` the stored form of ours. With `moves_rows`, whole
    rows change their places and nothing else happens, so `load` also works on rows of quantised blocks.
    """

    load: Callable[[Tensor], Tensor]
    store: Callable[[Tensor], Tensor]
    moves_rows: bool = False


def _transpose(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous() if tensor.dim() > 1 else tensor


TRANSPOSED = Transform(_transpose, _transpose)
"""The stored matrix is [inputs, outputs], as in GPT-2's Conv1D, or a stack of such; a bias is unchanged."""


def offset(by: float) -> Transform:
    """Returns the transform of tensors that are stored as ours plus `by`, as Gemma's norms in GGUF files."""

    def load(stored: Tensor) -> Tensor:
        # The first arithmetic on a meta tensor imports torch's decompositions, which takes 0.8 s.
        return stored if stored.is_meta else stored - by

    return Transform(load, lambda ours: ours + by)


def permuted(heads: int, rotated: int | None = None) -> Transform:
    """Returns the transform of query and key rows that are stored for a rotation of neighbouring pairs.

    Ours is for a rotation that pairs the two halves of a head, as most hub checkpoints are. llama.cpp's
    converter (`permute` in convert_hf_to_gguf.py) turns rows [heads, 2, dim/2] into [heads, dim/2, 2] for
    Llama; other families store such rows on the hub, too. With `rotated`, only the first rows of each head
    rotate, and the others stay. For keys, `heads` is the number of key heads. The transform works for weights
    [rows, columns] and biases [rows].
    """

    def load(stored: Tensor) -> Tensor:
        by_head = stored.reshape(heads, -1, *stored.shape[1:])
        ours = torch.empty(stored.shape, dtype=stored.dtype, device=stored.device)
        size = by_head.shape[1] if rotated is None else rotated
        # Half a head at a time, because large copies are slow; see STEP.
        for source, target in zip(by_head, ours.view(by_head.shape), strict=True):
            target[: size // 2].copy_(source[:size:2])
            target[size // 2 : size].copy_(source[1:size:2])
            target[size:].copy_(source[size:])
        return ours

    def store(ours: Tensor) -> Tensor:
        by_head = ours.reshape(heads, -1, *ours.shape[1:])
        size = by_head.shape[1] if rotated is None else rotated
        halves = by_head[:, :size].reshape(heads, 2, size // 2, *ours.shape[1:])
        turned = halves.transpose(1, 2).flatten(1, 2)
        return torch.cat((turned, by_head[:, size:]), 1).reshape(ours.shape)

    return Transform(load, store, moves_rows=True)


def by_part(heads: int, parts: int = 3) -> Transform:
    """Returns the transform of rows that are stored as [heads, parts, size]; ours are [parts, heads, size].

    So GPT-NeoX and BLOOM store queries, keys and values: those of each head together.
    """

    def load(stored: Tensor) -> Tensor:
        by_head = stored.reshape(heads, parts, -1, *stored.shape[1:])
        ours = torch.empty(stored.shape, dtype=stored.dtype, device=stored.device)
        for source, target in zip(
            by_head, ours.view(parts, heads, *by_head.shape[2:]).unbind(1), strict=True
        ):
            target.copy_(source)
        return ours

    def store(ours: Tensor) -> Tensor:
        return ours.reshape(parts, heads, -1, *ours.shape[1:]).transpose(0, 1).reshape(ours.shape)

    return Transform(load, store, moves_rows=True)


def reordered(places: Sequence[int]) -> Transform:
    """Returns the transform of rows in another order: our row i is the stored row `places[i]`."""
    order = torch.tensor(places, device="cpu")

    def load(stored: Tensor) -> Tensor:
        if len(stored) != len(order):
            raise ValueError(f"{len(stored)} rows in place of {len(order)}")
        return stored if stored.is_meta else stored[order]

    def store(ours: Tensor) -> Tensor:
        stored = torch.empty_like(ours)
        stored[order] = ours
        return stored

    return Transform(load, store, moves_rows=True)
