"""Decodes block-quantised GGML tensors to floating point, a bounded number of blocks at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Elements decoded or copied at once. This many stay in a core's cache, and torch runs operations of up to
# 32,768 elements on the calling thread. Thousands of short parallel regions are slow on a machine with other
# work: 135 million elements took 0.3 s this way, and 4 to 15 s in larger steps beside three busy processes.
STEP = 1 << 15


class UnknownTypeError(Exception):
    """Reports a type that cannot be decoded."""


def dequantise(raw: torch.Tensor, kind: str, out: torch.Tensor) -> bool:
    """Decodes blocks of the GGML type `kind` into `out`; returns True if every value is finite.

    `raw` is uint8 [blocks, bytes per block], `out` any floating type [blocks, elements per block]; `out` is
    overwritten. Values are computed in float32 with ggml's order of operations, then rounded to `out`'s type.
    Raises `UnknownTypeError` for a type that neither this module nor the gguf package decodes.
    """
    decode = DECODERS.get(kind) or _by_package(kind)
    step = max(1, STEP // out.shape[1])
    buffer = torch.empty(min(step, out.shape[0]), out.shape[1], dtype=torch.float32)
    finite = True
    for start in range(0, out.shape[0], step):
        target = out[start : start + step]
        values = target if out.dtype == torch.float32 else buffer[: target.shape[0]]
        decode(raw[start : start + step], values)
        # A sum is not finite if any value isn't, and is far cheaper than a test of each value.
        finite = finite and (bool(values.sum().isfinite()) or bool(values.isfinite().all()))
        if values is not target:
            target.copy_(values)
    return finite


def _q4_0(raw: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(raw[:, 2:], out)
    out.sub_(8).mul_(_halves(raw[:, :2]))


def _q4_1(raw: torch.Tensor, out: torch.Tensor) -> None:
    scale_and_minimum = _halves(raw[:, :4])
    _nibbles(raw[:, 4:], out)
    out.mul_(scale_and_minimum[:, :1]).add_(scale_and_minimum[:, 1:])


def _q8_0(raw: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(raw[:, 2:].view(torch.int8))
    out.mul_(_halves(raw[:, :2]))


def _halves(raw: torch.Tensor) -> torch.Tensor:
    """Returns the float16 numbers in these bytes as float32."""
    return raw.contiguous().view(torch.float16).float()


def _nibbles(raw: torch.Tensor, out: torch.Tensor) -> None:
    """Writes the low halves of the bytes, then the high halves, to `out`."""
    packed = raw.contiguous()
    levels = torch.empty(out.shape, dtype=torch.uint8)
    torch.bitwise_and(packed, 15, out=levels[:, :16])
    torch.bitwise_right_shift(packed, 4, out=levels[:, 16:])
    out.copy_(levels)


# The gguf package decodes all types, but takes more than twice the time for these three.
DECODERS: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
}


def _by_package(kind: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    import gguf
    import numpy as np

    def decode(raw: torch.Tensor, out: torch.Tensor) -> None:
        try:
            with np.errstate(all="ignore"):
                values = gguf.dequantize(raw.numpy().reshape(1, -1), gguf.GGMLQuantizationType[kind])
        except NotImplementedError:
            raise UnknownTypeError(kind) from None
        out.copy_(torch.from_numpy(values).view(out.shape))

    return decode
