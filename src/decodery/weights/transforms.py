"""Converts stored tensors to the form of a module's parameters, and back."""

from __future__ import annotations

from collections.abc import Callable
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


def permuted(heads: int) -> Transform:
    """Returns the transform of query and key projections whose rows GGUF conversion reordered, as for Llama.

    llama.cpp rotates neighbouring pairs of a head, and the hub's layout pairs the two halves of a head. So
    llama.cpp's converter (`permute` in convert_hf_to_gguf.py) turns rows [heads, 2, dim/2] into [heads,
    dim/2, 2]. For keys, `heads` is the number of key heads. The transform works for weights [rows, columns]
    and biases [rows].
    """

    def load(stored: Tensor) -> Tensor:
        halves = stored.reshape(heads, -1, 2, *stored.shape[1:]).transpose(1, 2)
        ours = torch.empty(stored.shape, dtype=stored.dtype, device=stored.device)
        # Half a head at a time, because large copies are slow; see STEP.
        for source, target in zip(halves, ours.view(halves.shape), strict=True):
            target[0].copy_(source[0])
            target[1].copy_(source[1])
        return ours

    def store(ours: Tensor) -> Tensor:
        halves = ours.reshape(heads, 2, -1, *ours.shape[1:])
        return halves.transpose(1, 2).reshape(ours.shape)

    return Transform(load, store, moves_rows=True)
