"""Checks that codes of GGML's types have the values that the gguf package decodes, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import Codes, pack
from decodery.weights.layouts.block_codes import CODED_TYPES, codes_of
from tests.kernels.native.fixtures import built
from tests.weights.files import random_blocks

ROWS, COLUMNS = 5, 40960


def blocks_and_values(kind: str) -> tuple[Tensor, Tensor]:
    blocks = random_blocks(gguf.GGMLQuantizationType[kind], ROWS, COLUMNS, seed=1)
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks.reshape(-1, size)[::7] = 0  # Scales of 0, too.
    values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(blocks), torch.from_numpy(np.ascontiguousarray(values))


def decoded(codes: Codes) -> Tensor:
    assert codes.scales is not None
    scales = codes.scales.float().repeat_interleave(codes.shape[1] // codes.scales.shape[1], 1)
    return scales * (codes.codes.float() - codes.format.zero)


@pytest.mark.parametrize("kind", CODED_TYPES)
def test_codes_times_scales_are_the_values_of_the_package(kind: str) -> None:
    blocks, values = blocks_and_values(kind)
    assert torch.equal(decoded(codes_of(blocks, kind)), values)


@built
@pytest.mark.parametrize("kind", CODED_TYPES)
def test_packed_rows_have_these_values_too(kind: str) -> None:
    blocks, values = blocks_and_values(kind)
    packed = pack(codes_of(blocks, kind))
    assert torch.equal(NativeKernels().embedding(torch.arange(ROWS), packed), values)
