"""GGML's quantised blocks as codes, scales and minima that mean the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from decodery.kernels.packed import Codes, Format


def codes_from_blocks(raw: Tensor, kind: str) -> Codes:
    """A matrix of the GGML type `kind`, uint8 [rows, bytes per row], for the native kernels.

    Dequantised, it is what ggml's own order of operations gives in float32, bit for bit. `kind` is one of
    `KINDS`.
    """
    size, decode = KINDS[kind]
    rows = len(raw)
    form, codes, scales, minima = decode(raw.reshape(-1, size))
    return Codes(
        form,
        codes.reshape(rows, -1),
        scales.reshape(rows, -1),
        None if minima is None else minima.reshape(rows, -1),
    )


Decoded = tuple[Format, Tensor, Tensor, Tensor | None]


def _halves(raw: Tensor) -> Tensor:
    return raw.contiguous().view(torch.float16)


def _nibbles(raw: Tensor) -> Tensor:
    """[n, bytes] as [n, 2 * bytes]: the low halves of the bytes first, then the high halves."""
    return torch.cat((raw & 15, raw >> 4), -1)


def _q4_0(raw: Tensor) -> Decoded:
    return Format.INT4, _nibbles(raw[:, 2:]), _halves(raw[:, :2]), None


def _q4_1(raw: Tensor) -> Decoded:
    return Format.INT4_MIN, _nibbles(raw[:, 4:]), _halves(raw[:, :2]), _halves(raw[:, 2:4])


def _fifth_bits(raw: Tensor) -> Tensor:
    """[n, 4] as [n, 32]: each bit, shifted to the place of a fifth one."""
    bits = raw[:, :, None] >> torch.arange(8, dtype=torch.uint8)
    return (bits & 1).reshape(len(raw), 32) << 4


def _q5_0(raw: Tensor) -> Decoded:
    codes = _nibbles(raw[:, 6:]) | _fifth_bits(raw[:, 2:6])
    return Format.INT8, codes + (128 - 16), _halves(raw[:, :2]), None


def _q5_1(raw: Tensor) -> Decoded:
    codes = _nibbles(raw[:, 8:]) | _fifth_bits(raw[:, 4:8])
    return Format.INT8_MIN, codes, _halves(raw[:, :2]), _halves(raw[:, 2:4])


def _q8_0(raw: Tensor) -> Decoded:
    return Format.INT8, raw[:, 2:] ^ 128, _halves(raw[:, :2]), None


def _scales_and_minima(raw: Tensor) -> tuple[Tensor, Tensor]:
    """The eight scales and minima of a K block, which begins with their own two scales, in float32."""
    scale, minimum = _halves(raw[:, :2]).float(), _halves(raw[:, 2:4]).float()
    first, second, last = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = torch.cat((first & 63, last & 15 | first >> 6 << 4), -1)
    minima = torch.cat((second & 63, last >> 4 | second >> 6 << 4), -1)
    return scale * scales.float(), -(minimum * minima.float())


def _q4_k(raw: Tensor) -> Decoded:
    codes = _nibbles(raw[:, 16:].reshape(-1, 4, 32))
    return Format.INT4_MIN_WIDE, codes, *_scales_and_minima(raw)


def _q5_k(raw: Tensor) -> Decoded:
    bits = raw[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    codes = _nibbles(raw[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | bits << 4
    return Format.INT8_MIN_WIDE, codes, *_scales_and_minima(raw)


def _q6_k(raw: Tensor) -> Decoded:
    low = _nibbles(raw[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    high = raw[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    scales = raw[:, 192:208].contiguous().view(torch.int8).float() * _halves(raw[:, 208:]).float()
    return Format.INT8_HALVES, (low | high << 4) + (128 - 32), scales, None


KINDS: dict[str, tuple[int, Callable[[Tensor], Decoded]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
}
"""The GGML types that can be taken over, each with the bytes of a block."""
