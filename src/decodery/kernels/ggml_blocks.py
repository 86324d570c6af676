"""Reads GGML's quantised blocks as `Codes` with the same values."""

from __future__ import annotations

import torch
from torch import Tensor

from decodery.kernels.packed_weights import BlockType, Codes, Format

# The numbers, bytes and weights are those of ggml.h and ggml-common.h (https://github.com/ggml-org/ggml).
PACKED_TYPES = {
    "Q4_0": BlockType(18, Format.INT4, 2, 32, slice(0, 2)),
    "Q4_1": BlockType(20, Format.INT4_MIN, 3, 32, slice(0, 4)),
    "Q5_0": BlockType(22, Format.INT8, 6, 32, slice(0, 2)),
    "Q5_1": BlockType(24, Format.INT8_MIN, 7, 32, slice(0, 4)),
    "Q8_0": BlockType(34, Format.INT8, 8, 32, slice(0, 2)),
    "Q4_K": BlockType(144, Format.INT4_MIN_WIDE, 12, 256, slice(0, 4)),
    "Q5_K": BlockType(176, Format.INT8_MIN_WIDE, 13, 256, slice(0, 4)),
    "Q6_K": BlockType(210, Format.INT8_HALVES, 14, 256, slice(208, 210)),
    "MXFP4": BlockType(17, Format.FP4, 39, 32, None),
}
"""The types that the kernels can hold without a change of values."""


def codes_from_blocks(raw: Tensor, kind: str) -> Codes:
    """Returns a matrix of the GGML type `kind`, uint8 [rows, bytes per row], as codes for `pack`, without a
    copy.

    Dequantised in float32, the values are those of ggml's own order of operations, bit for bit. `kind` is one
    of `PACKED_TYPES`.
    """
    blocks = PACKED_TYPES[kind]
    if blocks.scales is None:
        return Codes(blocks.format, raw, blocks=blocks)
    scales = raw.view(len(raw), -1, blocks.size)[..., blocks.scales].view(torch.float16)
    return Codes(blocks.format, raw, scales, blocks=blocks)
