"""Converts keys and values to and from the form of a cache: floats, or codes of 8 bits with scales.

`write_one` in native/kv_formats.hpp does the same for the native backend: the two change together.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SCALE_BYTES = 4
_LARGEST, _SMALLEST = 3e38, 1e-30


def stored_width(dim: int, dtype: torch.dtype) -> int:
    """Returns the number of elements of `dtype` that a cache keeps for a key or value of `dim` numbers.

    int8 codes are followed by a float32 scale.
    """
    return dim + _SCALE_BYTES if dtype == torch.int8 else dim


def stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns keys or values [..., dim] as a cache of `dtype` keeps them: [..., stored_width(dim, dtype)].

    All stored numbers are finite: NaN and infinity become 0, and numbers beyond the range of `dtype` become
    its largest. int8 codes are x divided by a scale, which is the largest absolute value of x divided by 127;
    if that value is below 1e-30, all codes are 0.
    """
    x = x.nan_to_num(0.0, 0.0, 0.0)
    if dtype == x.dtype:
        return x
    if dtype != torch.int8:
        largest = torch.finfo(dtype).max
        return x.clamp(-largest, largest).to(dtype)
    x = x.float().clamp(-_LARGEST, _LARGEST)
    top = x.abs().amax(-1, keepdim=True)
    inverse = torch.where(top < _SMALLEST, 0.0, 127 / top)
    scale = torch.where(top < _SMALLEST, 0.0, top / 127)
    return torch.cat(((x * inverse).round().to(torch.int8), scale.view(torch.int8)), -1)


def restored(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns numbers [..., dim] of `dtype` from the form that `stored` gave them."""
    if kept.dtype == dtype:
        return kept
    if kept.dtype != torch.int8:
        return kept.to(dtype)
    codes, scale = kept[..., :-_SCALE_BYTES], kept[..., -_SCALE_BYTES:].contiguous().view(torch.float32)
    return (codes * scale).to(dtype)
