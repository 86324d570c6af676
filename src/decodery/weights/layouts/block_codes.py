"""Converts GGML's blocks to codes of the native kernels' formats where a weight is a scale times a small
integer.

The layouts of the blocks are those of ggml-common.h (https://github.com/ggml-org/ggml).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.packed_weights import GROUP, Codes, Format
from decodery.weights.formats.dequantise import STEP, dequantise
from decodery.weights.formats.element_types import ELEMENT_TYPES

Blocks = NDArray[np.uint8]
Scales = Callable[[Blocks], NDArray[Any]]


class CodedType(NamedTuple):
    """Describes a type whose weights are `scale * code`.

    `scales` returns the scales of blocks [blocks, scales of a block], in the order of the weights that share
    one each.
    """

    format: Format
    scales: Scales


def codes_of(raw: Tensor, kind: str) -> Codes:
    """Returns a matrix of a type of `CODED_TYPES`, uint8 [rows, bytes per row], as codes for `pack`.

    `scale * (code - zero)` in float32 is the value that the gguf package decodes, bit for bit.
    """
    coded = CODED_TYPES[kind]
    block, size = next((e.block, e.size) for e in ELEMENT_TYPES.values() if e.name == kind)
    shared = GROUP // coded.format.value.parts
    blocks = raw.contiguous().view(-1, size)
    codes = torch.empty(len(blocks), block, dtype=torch.uint8)
    scales = torch.empty(len(blocks), block // shared, dtype=coded.format.value.scale)
    values = torch.empty(min(len(blocks), STEP // block), block)
    for start in range(0, len(blocks), len(values)):
        part = blocks[start : start + len(values)]
        decoded = values[: len(part)]
        dequantise(part, kind, decoded)
        found = torch.from_numpy(np.ascontiguousarray(coded.scales(part.numpy()), np.float32))
        # A quotient's rounding error is far below one half, which separates the codes.
        quotients = decoded.view(len(part), found.shape[1], -1) / found.where(found != 0, 1.0)[..., None]
        codes[start : start + len(part)] = (quotients.round() + coded.format.zero).view(len(part), block)
        scales[start : start + len(part)] = found.repeat_interleave(scales.shape[1] // found.shape[1], 1)
    rows = len(raw)
    return Codes(coded.format, codes.view(rows, -1), scales.view(rows, -1))


def _halves(blocks: Blocks, place: slice) -> NDArray[np.float32]:
    found: NDArray[np.float16] = np.ascontiguousarray(blocks[:, place]).view(np.float16)
    return found.astype(np.float32)


def _nibbles(parts: Blocks) -> NDArray[np.uint8]:
    """Returns the low and the high half of each byte [blocks, bytes]: [blocks, 2 * bytes]."""
    return np.stack((parts & 15, parts >> 4), -1).reshape(len(parts), -1)


def _words(parts: Blocks, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    return np.ascontiguousarray(parts).view(kind)


def _q3_k(blocks: Blocks) -> NDArray[Any]:
    low, high = blocks[:, 96:104], blocks[:, 104:108]
    lows = np.concatenate((low & 15, low >> 4), 1)
    highs = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], 1)
    parts: NDArray[np.float32] = (lows | highs << 4).astype(np.float32)
    return _halves(blocks, slice(108, 110)) * (parts - 32)


def _iq1_s(blocks: Blocks) -> NDArray[Any]:
    highs = _words(blocks[:, 34:50], np.uint16)
    # The weights are multiples of an eighth of the scale.
    return _halves(blocks, slice(0, 2)) * (2 * (highs >> 12 & 7) + 1) * np.float32(0.125)


def _iq1_m(blocks: Blocks) -> NDArray[Any]:
    words = _words(blocks[:, 48:56], np.uint16)
    shifts = np.array([12, 8, 4, 0], np.uint16)
    d = np.bitwise_or.reduce((words & 0xF000) >> shifts, axis=1).astype(np.uint16)
    parts = np.stack([words >> shift & 7 for shift in (0, 3, 6, 9)], -1).reshape(len(words), -1)
    scales: NDArray[np.float32] = d.view(np.float16).astype(np.float32)[:, None] * (2 * parts + 1) / 8
    return scales


def _iq2(scales: slice) -> Scales:
    def found(blocks: Blocks) -> NDArray[Any]:
        parts = _nibbles(blocks[:, scales]).astype(np.float32)
        return _halves(blocks, slice(0, 2)) * (np.float32(0.5) + parts) * np.float32(0.25)

    return found


def _iq2_xxs(blocks: Blocks) -> NDArray[Any]:
    parts = (_words(blocks[:, 2:], np.uint32)[:, 1::2] >> 28).astype(np.float32)
    return _halves(blocks, slice(0, 2)) * (np.float32(0.5) + parts) * np.float32(0.25)


def _iq3_xxs(blocks: Blocks) -> NDArray[Any]:
    parts = (_words(blocks[:, 66:], np.uint32) >> 28).astype(np.float32)
    return _halves(blocks, slice(0, 2)) * (np.float32(0.5) + parts) * np.float32(0.5)


def _iq3_s(blocks: Blocks) -> NDArray[Any]:
    return _halves(blocks, slice(0, 2)) * (1 + 2 * _nibbles(blocks[:, 106:110]).astype(np.float32))


def _iq4_xs(blocks: Blocks) -> NDArray[Any]:
    high = _words(blocks[:, 2:4], np.uint16)
    highs = np.concatenate([high >> 2 * i & 3 for i in range(8)], 1)
    parts = _nibbles(blocks[:, 4:8]).astype(np.int32) | highs << 4
    return _halves(blocks, slice(0, 2)) * (parts - 32).astype(np.float32)


def _first_half(blocks: Blocks) -> NDArray[Any]:
    return _halves(blocks, slice(0, 2))


def _last_half(blocks: Blocks) -> NDArray[Any]:
    return _halves(blocks, slice(-2, None))


def _nvfp4(blocks: Blocks) -> NDArray[Any]:
    parts = blocks[:, :4].astype(np.int32)
    exponent, mantissa = parts >> 3 & 15, parts & 7
    scales = np.where(
        exponent == 0, np.ldexp(mantissa * 1.0, -10), np.ldexp(1 + mantissa / 8, exponent - 8)
    ).astype(np.float32)
    return np.where(parts == 0x7F, np.float32(0), scales)


CODED_TYPES = {
    "Q3_K": CodedType(Format.INT8_HALVES, _q3_k),
    "IQ1_S": CodedType(Format.INT8_HALVES, _iq1_s),
    "IQ1_M": CodedType(Format.INT8_HALVES, _iq1_m),
    "IQ2_XXS": CodedType(Format.INT8_HALVES, _iq2_xxs),
    "IQ2_XS": CodedType(Format.INT8_HALVES, _iq2(slice(66, 74))),
    "IQ2_S": CodedType(Format.INT8_HALVES, _iq2(slice(74, 82))),
    "IQ3_XXS": CodedType(Format.INT8_HALVES, _iq3_xxs),
    "IQ3_S": CodedType(Format.INT8_HALVES, _iq3_s),
    "IQ4_NL": CodedType(Format.INT8, _first_half),
    "IQ4_XS": CodedType(Format.INT8_HALVES, _iq4_xs),
    "TQ1_0": CodedType(Format.INT4, _last_half),
    "TQ2_0": CodedType(Format.INT4, _last_half),
    "NVFP4": CodedType(Format.INT8_HALVES, _nvfp4),
}
"""The types that the native formats hold without a change of values, besides those that the kernels read."""
