"""How keys and values stand in a cache: as floats, or as codes of 8 bits with scales."""

from __future__ import annotations

import torch
from torch import Tensor

_SCALE_BYTES = 4
_LARGEST, _SMALLEST = 3e38, 1e-30


def stored_width(dim: int, dtype: torch.dtype) -> int:
    """How many numbers of `dtype` a cache keeps for a key or value of `dim`: int8 codes have a float32 scale
    behind them."""
    return dim + _SCALE_BYTES if dtype == torch.int8 else dim


def stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys or values [..., dim] as a cache of `dtype` keeps them: [..., stored_width(dim, dtype)].

    Always finite: what is not is kept as 0, and what `dtype` cannot hold as the largest that it can. int8
    codes are x divided by a scale, which is the largest size in x divided by 127; below 1e-30 all is 0.
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
    """What `stored` kept, as numbers of `dtype` [..., dim]."""
    if kept.dtype == dtype:
        return kept
    if kept.dtype != torch.int8:
        return kept.to(dtype)
    codes, scale = kept[..., :-_SCALE_BYTES], kept[..., -_SCALE_BYTES:].contiguous().view(torch.float32)
    return (codes * scale).to(dtype)
