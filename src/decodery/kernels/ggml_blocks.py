"""GGML's quantised blocks as weights that mean the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from decodery.kernels.packed_weights import BlockType, Codes, Format

# A type's number, bytes and weights are those of ggml.h and ggml-common.h (https://github.com/ggml-org/ggml).
KINDS = {
    "Q4_0": BlockType(18, Format.INT4, 2, 32, slice(0, 2)),
    "Q4_1": BlockType(20, Format.INT4_MIN, 3, 32, slice(0, 4)),
    "Q5_0": BlockType(22, Format.INT8, 6, 32, slice(0, 2)),
    "Q5_1": BlockType(24, Format.INT8_MIN, 7, 32, slice(0, 4)),
    "Q8_0": BlockType(34, Format.INT8, 8, 32, slice(0, 2)),
    "Q4_K": BlockType(144, Format.INT4_MIN_WIDE, 12, 256, slice(0, 4)),
    "Q5_K": BlockType(176, Format.INT8_MIN_WIDE, 13, 256, slice(0, 4)),
    "Q6_K": BlockType(210, Format.INT8_HALVES, 14, 256, slice(208, 210)),
}
"""The types that can be taken over."""


def codes_from_blocks(raw: Tensor, kind: str) -> Codes:
    """A matrix of the GGML type `kind`, uint8 [rows, bytes per row], for `pack`; nothing is copied.

    Dequantised, it is what ggml's own order of operations gives in float32, bit for bit. `kind` is one of
    `KINDS`.
    """
    blocks = KINDS[kind]
    scales = raw.view(len(raw), -1, blocks.size)[..., blocks.scales].view(torch.float16)
    return Codes(blocks.format, raw, scales, blocks=blocks)
