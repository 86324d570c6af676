"""Compares the activations of each backend with their formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from decodery.kernels.contract import Activation, Kernels
from decodery.kernels.native.library import available
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.rows import rows

REFERENCE: Kernels = torch_kernels
BACKENDS = [REFERENCE, *([NativeKernels()] if available() else [])]


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": lambda x: x.clamp(min=0),
}
X = torch.cat(
    (torch.linspace(-20, 20, 40001), torch.linspace(-1e-3, 1e-3, 999), torch.tensor([-1e30, 0.0, 1e30]))
)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kernels", BACKENDS, ids=lambda k: "native" if k is not REFERENCE else "reference")
@pytest.mark.parametrize("reach", [0.001, 1, 4, 20])
def test_the_error_is_at_most_twice_that_of_the_plain_formula(
    kernels: Kernels, name: Activation, reach: float
) -> None:
    x = X[X.abs() <= reach]
    exact = FORMULAS[name](x.double())
    limit = 2 * (FORMULAS[name](x) - exact).abs().max()
    assert (kernels.activation(x, name) - exact).abs().max() <= limit
    halves = torch.stack((x, x.flip(0)), 0).reshape(1, -1)
    exact = exact * x.flip(0).double()
    limit = 2 * (FORMULAS[name](x) * x.flip(0) - exact).abs().max()
    assert (kernels.gated(halves, name)[0] - exact).abs().max() <= limit


@pytest.mark.parametrize("kernels", BACKENDS, ids=lambda k: "native" if k is not REFERENCE else "reference")
@pytest.mark.parametrize("width", [1, 16, 37])
def test_clipped_elements_are_exact_and_nan_is_kept(kernels: Kernels, width: int) -> None:
    x = rows(width, torch.float32, 9)
    x.view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    assert torch.equal(kernels.clip(x, 0.7).nan_to_num(5), x.clamp(-0.7, 0.7).nan_to_num(5))
    part = torch.randn(4, 2 * width)[:, :width]
    assert torch.equal(kernels.clip(part, 0.3), part.clamp(-0.3, 0.3))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kernels", BACKENDS, ids=lambda k: "native" if k is not REFERENCE else "reference")
def test_far_out_and_beyond_numbers(kernels: Kernels, name: Activation) -> None:
    x = torch.tensor([math.nan, math.inf, 1e30, -1e30])
    found = kernels.activation(x, name)
    assert found[0].isnan()
    assert found[1:].tolist() == [math.inf, x[2].item(), 0]


@pytest.mark.parametrize("name", FORMULAS)
def test_bfloat16_is_rounded_once(name: Activation) -> None:
    x = (torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * 3).bfloat16()
    gate, up = x.double().chunk(2, -1)
    for found, exact in (
        (REFERENCE.activation(x, name), FORMULAS[name](x.double())),
        (REFERENCE.gated(x, name), FORMULAS[name](gate) * up),
    ):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), exact, rtol=1.001 * 2**-8, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_the_formula(name: Activation) -> None:
    x = torch.linspace(-5, 5, 100, requires_grad=True)  # Without 0, where relu has no gradient.
    (found,) = torch.autograd.grad(REFERENCE.activation(x, name).sum(), x)
    (expected,) = torch.autograd.grad(FORMULAS[name](x).sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@built
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("width", [6, 34, 700])
def test_no_bit_of_a_native_row_depends_on_its_batch_or_on_settings(name: Activation, width: int) -> None:
    kernels, x = NativeKernels(), rows(width, torch.float32, 40)
    whole = kernels.activation(x, name), kernels.gated(x, name)
    for setting in SETTINGS:
        with running(setting):
            for count in (1, 3, 17, 40):
                assert torch.equal(kernels.activation(x[:count], name), whole[0][:count]), setting
                assert torch.equal(kernels.gated(x[:count], name), whole[1][:count]), setting


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_gated_product_has_the_activation(name: Activation, dtype: torch.dtype) -> None:
    x, weight = rows(80, dtype, 12), rows(80, dtype, 96, seed=1) / 20
    found = REFERENCE.gated_linear(x, REFERENCE.pack_gated(weight), None, name)
    gate, up = (x.double() @ weight.double().T).chunk(2, -1)
    torch.testing.assert_close(
        found.double(), FORMULAS[name](gate) * up, rtol=0.02, atol=0.02 if dtype == torch.bfloat16 else 1e-5
    )
