"""Checks packed weights and their products: exact where promised, close where rounded, with equal bits
everywhere.
"""

from __future__ import annotations

import math

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Activation
from decodery.kernels.ggml_blocks import PACKED_TYPES, codes_from_blocks
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import PackedWeight, pack
from decodery.kernels.quantise import quantise
from decodery.kernels.reference import torch_kernels
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.rows import rows

pytestmark = built

FORMS = ["int4", "int8", "bf16", "float32"]


def blocks(kind: str, count: int, length: int) -> Tensor:
    """Returns random rows of blocks whose own scales are small finite numbers."""
    size = PACKED_TYPES[kind].size
    generator = np.random.default_rng(0)
    raw = generator.integers(0, 256, (count, length, size), dtype=np.uint8)
    scales = (generator.standard_normal((count, length, 2)) * 0.1).astype(np.float16).view(np.uint8)
    if kind == "MXFP4":
        raw[..., 0] = 116 + raw[..., 0] % 12
    elif kind == "Q6_K":
        raw[..., -2:] = scales[..., :2]
    else:
        several = kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K")
        raw[..., : 4 if several else 2] = scales[..., : 4 if several else 2]
    return torch.from_numpy(raw.reshape(count, -1))


def plain(weight: PackedWeight) -> Tensor:
    return NativeKernels().embedding(torch.arange(weight.rows), weight)


@pytest.mark.parametrize("kind", PACKED_TYPES)
def test_a_packed_block_is_what_the_gguf_package_decodes(kind: str) -> None:
    raw = blocks(kind, 35, 3)
    expected = gguf.dequantize(raw.numpy(), gguf.GGMLQuantizationType[kind])
    weight = pack(codes_from_blocks(raw, kind))
    for setting in SETTINGS:
        with running(setting):
            assert torch.equal(plain(weight), torch.from_numpy(expected))


def test_every_exponent_of_a_block_of_four_bit_floats_is_what_the_gguf_package_decodes() -> None:
    raw = blocks("MXFP4", 256, 1)
    raw[:, 0] = torch.arange(256)
    with np.errstate(over="ignore"):
        expected = gguf.dequantize(raw.numpy(), gguf.GGMLQuantizationType.MXFP4)
    assert torch.equal(plain(pack(codes_from_blocks(raw, "MXFP4"))), torch.from_numpy(expected))


def formula(x: Tensor, weight: Tensor) -> Tensor:
    """Computes the product with x rounded to int8 in groups of 32, in float64."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % 32)).view(len(x), -1, 32)
    scales = groups.abs().amax(-1, keepdim=True) / 127
    rounded = (groups * torch.where(scales > 0, 127 / (scales * 127), 0)).round().double() * scales.double()
    return rounded.flatten(1)[:, : x.shape[1]] @ weight.double().T


@pytest.mark.parametrize("kind", PACKED_TYPES)
def test_the_product_with_codes_rounds_the_activations_and_nothing_else(kind: str) -> None:
    weight = pack(codes_from_blocks(blocks(kind, 48, 3), kind))
    x = rows(weight.columns, torch.float32, 7)
    dense = plain(weight)
    exact = formula(x, dense)
    single = (
        (torch_kernels.linear(x, dense) - torch_kernels.linear(x.double(), dense.double())).abs().max().item()
    )
    for setting in SETTINGS:
        with running(setting):
            found = (NativeKernels().linear(x, weight) - exact).abs().max().item()
        # A tie that float32 rounds to the other side moves one activation by a step.
        assert found <= 2 * single + 1e-4 * exact.abs().max().item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 16), (1, 1), (33, 5), (576, 97), (100, 70), (1536, 48)])
def test_every_setting_and_number_of_rows_gives_a_row_the_same_bits(
    form: str, inputs: int, outputs: int
) -> None:
    kernels = NativeKernels()
    weight = pack(quantise(rows(inputs, torch.float32, outputs, seed=1), form))
    gated = pack(quantise(rows(inputs, torch.float32, 2 * outputs, seed=1), form), gated=True)
    x, residual = rows(inputs, torch.float32, 131), rows(outputs, torch.float32, 131, seed=3)
    bias = rows(outputs, torch.float32, 1, seed=2)[0]
    expected = kernels.linear(x, weight, bias, residual), kernels.gated_linear(x, gated)
    for setting in SETTINGS:
        with running(setting):
            for count in (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 19, 131):
                for start in {0, 131 - count}:
                    part = slice(start, start + count)
                    found = kernels.linear(x[part], weight, bias, residual[part])
                    assert torch.equal(found, expected[0][part]), (setting, count)
                    assert torch.equal(kernels.gated_linear(x[part], gated), expected[1][part])


@pytest.mark.parametrize("form", ["bf16", "float32"])
def test_the_error_with_float_weights_is_at_most_twice_the_formula(form: str) -> None:
    matrix = rows(700, torch.float32, 97, seed=1) / 80
    weight = pack(quantise(matrix, form))
    x, dense = rows(700, torch.float32, 40), plain(weight)
    exact = x.double() @ dense.double().T
    one_by_one = x.new_zeros(len(x), len(dense))
    for k in range(700):
        one_by_one = torch.addcmul(one_by_one, x[:, k, None], dense[None, :, k])
    limit = 2 * (one_by_one - exact).abs().max()
    assert (NativeKernels().linear(x, weight) - exact).abs().max() <= limit


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("form", FORMS)
def test_an_activation_within_a_product_has_the_bits_of_one_after_it(
    form: str, activation: Activation
) -> None:
    kernels = NativeKernels()
    weight = pack(quantise(rows(80, torch.float32, 70, seed=1) / 40, form))
    bias, residual = rows(70, torch.float32, 1, seed=2)[0], rows(70, torch.float32, 41, seed=3)
    x = rows(80, torch.float32, 41)
    for setting in SETTINGS:
        with running(setting):
            expected = kernels.activation(kernels.linear(x, weight, bias), activation)
            assert torch.equal(kernels.linear(x, weight, bias, activation=activation), expected)
            assert torch.equal(kernels.linear(x, weight, bias, residual, activation), expected + residual)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("form", FORMS)
def test_gated_is_the_gated_product(form: str, activation: Activation) -> None:
    kernels = NativeKernels()
    matrix, bias = rows(80, torch.float32, 70, seed=1) / 40, rows(70, torch.float32, 1, seed=2)[0]
    x = rows(80, torch.float32, 11)
    both = kernels.linear(x, pack(quantise(matrix, form)), bias)
    exact = torch_kernels.gated(both.double(), activation)
    found = kernels.gated_linear(x, pack(quantise(matrix, form), gated=True), bias, activation)
    assert (found - exact).abs().max() <= 2 * (
        torch_kernels.gated(both, activation) - exact
    ).abs().max() + 1e-7


@pytest.mark.parametrize(("form", "most"), [("int4", 0.08), ("int8", 0.006), ("bf16", 0.003)])
def test_quantising_a_matrix_loses_little(form: str, most: float) -> None:
    matrix = rows(100, torch.float32, 70)
    assert ((plain(pack(quantise(matrix, form))) - matrix).norm() / matrix.norm()).item() < most


def test_four_bits_lose_less_than_steps_over_the_range_of_a_group_do() -> None:
    matrix = rows(640, torch.float32, 70)
    groups = matrix.view(70, -1, 32)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    steps = ((groups - low) * 15 / (high - low)).round() * (high - low) / 15 + low
    lost = (plain(pack(quantise(matrix, "int4"))) - matrix).view(70, -1, 32)
    # The error counts more for large weights.
    weights = groups.square() + groups.square().mean(-1, keepdim=True)
    assert (weights * lost.square()).sum() < 0.9 * (weights * (steps - groups).square()).sum()


def test_four_bits_are_exact_for_weights_on_equidistant_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (40, 3, 32), generator=generator)
    codes[..., 0], codes[..., 1] = 0, 15
    matrix = (codes * 0.25 - 2).flatten(1)
    assert torch.equal(plain(pack(quantise(matrix, "int4"))), matrix)


def test_zeros_and_equal_weights_are_kept() -> None:
    for form in FORMS:
        for value in (0.0, 0.5):
            matrix = torch.full((20, 64), value)
            torch.testing.assert_close(plain(pack(quantise(matrix, form))), matrix, rtol=1e-3, atol=0)
    assert (
        not NativeKernels()
        .linear(torch.zeros(3, 64), pack(quantise(rows(64, torch.float32, 16), "int4")))
        .any()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_finite_spoils_its_own_row_alone(form: str, value: float) -> None:
    weight = pack(quantise(rows(64, torch.float32, 40, seed=1), form))
    x = rows(64, torch.float32, 6)
    clean = NativeKernels().linear(x, weight)
    x[2, 5] = value
    for setting in SETTINGS:
        with running(setting):
            found = NativeKernels().linear(x, weight)
        assert not found[2].isfinite().any()
        keep = torch.tensor([0, 1, 3, 4, 5])
        assert torch.equal(found[keep], clean[keep])


def test_inputs_may_be_columns_of_a_wider_matrix() -> None:
    weight = pack(quantise(rows(64, torch.float32, 40, seed=1), "int4"))
    wide = rows(200, torch.float32, 9)
    part = wide[:, 70:134]
    assert torch.equal(
        NativeKernels().linear(part, weight), NativeKernels().linear(part.contiguous(), weight)
    )
    cube = part.reshape(3, 3, 64)
    assert torch.equal(NativeKernels().linear(cube, weight).view(9, 40), NativeKernels().linear(part, weight))


def test_an_id_outside_the_vocabulary_reads_nothing() -> None:
    weight = pack(quantise(rows(64, torch.float32, 40, seed=1), "int8"))
    found = NativeKernels().embedding(torch.tensor([-1, 3, 40, 2**40]), weight)
    assert not found[[0, 2, 3]].any()
    assert torch.equal(found[1], plain(weight)[3])
