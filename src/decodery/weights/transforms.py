"""Converts stored tensors to the form of a module's parameters, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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


def _unit_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else F.normalize(tensor.float()).to(tensor.dtype)


UNIT_ROWS = Transform(_unit_rows, lambda ours: ours)
"""Each row is divided by its length, which nothing restores; rows that were divided stay as they are."""


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


def on_first(rows: int, transform: Transform) -> Transform:
    """Returns the transform of the first rows of a tensor; the others stay as they are."""

    def load(stored: Tensor) -> Tensor:
        return torch.cat((transform.load(stored[:rows]), stored[rows:]))

    def store(ours: Tensor) -> Tensor:
        return torch.cat((transform.store(ours[:rows]), ours[rows:]))

    return Transform(load, store, moves_rows=transform.moves_rows)


def by_element(rows: Transform) -> Transform:
    """Returns the transform of a table [heads, width] whose elements move as the rows of a matrix do."""

    def load(stored: Tensor) -> Tensor:
        return rows.load(stored.reshape(-1)).view(stored.shape)

    def store(ours: Tensor) -> Tensor:
        return rows.store(ours.reshape(-1)).view(ours.shape)

    return Transform(load, store)


def grouped(heads: int, kv_heads: int) -> Transform:
    """Returns the transform of queries, keys and values that are stored by the heads of keys.

    Each head of keys is stored with the queries that see it before it, and its values behind it; ours are all
    queries, all keys, all values. So Falcon stores them, and GPT-NeoX and BLOOM with as many heads of keys as
    of queries. It works for weights [rows, columns] and biases [rows].
    """
    sizes = heads // kv_heads, 1, 1

    def load(stored: Tensor) -> Tensor:
        by_group = stored.reshape(kv_heads, sum(sizes), -1, *stored.shape[1:])
        ours = torch.empty(stored.shape, dtype=stored.dtype, device=stored.device)
        start = 0
        for source in by_group.split_with_sizes(sizes, 1):
            rows = source.shape[0] * source.shape[1] * source.shape[2]
            target = ours[start : start + rows].view(source.shape)
            # One group at a time, because large copies are slow; see STEP.
            for part, place in zip(source, target, strict=True):
                place.copy_(part)
            start += rows
        return ours

    def store(ours: Tensor) -> Tensor:
        by_head = ours.reshape(heads + 2 * kv_heads, -1, *ours.shape[1:])
        parts = by_head.split_with_sizes((heads, kv_heads, kv_heads))
        by_group = [part.reshape(kv_heads, -1, *by_head.shape[1:]) for part in parts]
        return torch.cat(by_group, 1).reshape(ours.shape)

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


def without_first(rows: int) -> Transform:
    """Returns the transform of tables that are stored with unused rows before those of ours.

    Stored ones that are written have zeros there.
    """

    def store(ours: Tensor) -> Tensor:
        return torch.cat((ours.new_zeros(rows, *ours.shape[1:]), ours))

    return Transform(lambda stored: stored[rows:], store)
