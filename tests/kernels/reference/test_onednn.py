"""Checks that products with packed weights are as exact as those with the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from decodery.kernels.reference import onednn, torch_kernels
from tests.kernels.rows import assert_products_are_exact, rows

DTYPES = [torch.float32, torch.bfloat16]
INPUTS, OUTPUTS = [80, 576, 700, 1536], [48, 97, 960]


def some_linear(inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows, a weight and a bias whose results have a magnitude of about one."""
    x, weight = rows(inputs, dtype, 40), rows(inputs, torch.float32, outputs, seed=1)
    return x, (weight / (9 * inputs**0.5)).to(dtype), rows(outputs, dtype, 1, seed=2)[0]


def term_by_term(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes the formula of `linear` in x's dtype, each sum from its first term to its last."""
    out = x.new_zeros(len(x), len(weight))
    for index in range(x.shape[1]):
        out = torch.addcmul(out, x[:, index, None], weight[None, :, index])
    return out if bias is None else out + bias


def worst(found: Tensor, exact: Tensor) -> float:
    return (found.double() - exact).abs().max().item()


def test_a_weight_is_packed_where_torch_and_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(96, 80)
    can = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    assert torch_kernels.pack(weight).is_mkldnn == can
    assert isinstance(torch_kernels.pack_gated(weight), tuple) == can
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert torch_kernels.pack(weight) is weight
    assert torch_kernels.pack_gated(weight) is weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 63, 64, 97, 960, 1001])
def test_the_rows_of_a_packed_embedding_are_those_of_the_plain_one(count: int, dtype: torch.dtype) -> None:
    weight = rows(80, dtype, count)
    ids = torch.randint(count, (3, 40), generator=torch.Generator().manual_seed(0))
    for multiplied in (True, False):
        packed = torch_kernels.pack_embedding(weight, multiplied=multiplied)
        assert torch.equal(torch_kernels.embedding(ids, packed), weight[ids])
        assert torch_kernels.embedding(ids[:0], packed).shape == (0, 40, 80)
    x = rows(80, dtype, 4, seed=1)
    both = torch_kernels.pack_embedding(weight, multiplied=True)
    assert_products_are_exact(lambda x: torch_kernels.linear(x, both), x, weight, None, (1, 4), (0,))


def test_an_embedding_that_is_multiplied_is_packed_where_its_rows_are_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = rows(80, torch.float32, 1001)
    packed = torch_kernels.pack_embedding(weight, multiplied=True)
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert isinstance(packed, onednn.Readable) == torch_kernels.pack(weight).is_mkldnn
    else:  # oneDNN may have another layout.
        assert packed is weight or isinstance(packed, onednn.Readable)
    monkeypatch.setattr(onednn.Readable, "rows", lambda self, ids: torch.zeros(len(ids), 80))
    assert torch_kernels.pack_embedding(weight, multiplied=True) is weight


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_in_bfloat16_a_packed_product_sums_in_float32_and_is_rounded_at_the_end(
    inputs: int, outputs: int, bias: bool
) -> None:
    x, weight, offset = some_linear(inputs, outputs, torch.bfloat16)
    packed, added = torch_kernels.pack(weight), offset if bias else None
    assert_products_are_exact(lambda x: torch_kernels.linear(x, packed, added), x, weight, added, (40,), (0,))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_in_float32_the_error_is_at_most_twice_that_of_the_formula(
    inputs: int, outputs: int, bias: bool
) -> None:
    x, weight, offset = some_linear(inputs, outputs, torch.float32)
    added = offset if bias else None
    found = torch_kernels.linear(x, torch_kernels.pack(weight), added)
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if added is None else added.double())
    assert found.dtype == torch.float32
    assert worst(found, exact) <= 2 * worst(term_by_term(x, weight, added), exact)
    # The plain product sums in blocks, which is better than the formula; packed it may lose that and no more.
    assert worst(found, exact) <= 6 * worst(torch_kernels.linear(x, weight, added), exact)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(80, 96), (576, 3072), (700, 194), (1536, 960)])
def test_the_error_of_a_packed_gated_product_is_at_most_twice_that_of_the_formula(
    inputs: int, outputs: int, dtype: torch.dtype, bias: bool
) -> None:
    x, weight, offset = some_linear(inputs, outputs, dtype)
    added = offset if bias else None
    found = torch_kernels.gated_linear(x, torch_kernels.pack_gated(weight), added)
    exact = torch_kernels.gated_linear(x.double(), weight.double(), None if added is None else added.double())
    if dtype == torch.bfloat16:
        formula = torch_kernels.gated(torch_kernels.linear(x, weight, added))
    else:
        formula = torch_kernels.gated(term_by_term(x, weight, added))
    assert found.dtype == dtype
    assert worst(found, exact) <= 2 * worst(formula, exact)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_gates_are_open_or_shut(dtype: torch.dtype) -> None:
    weight = torch.cat((torch.eye(32) * 300, torch.eye(32))).to(dtype)
    x = rows(32, dtype, 8)
    x = torch.where(x.abs() < 0.5, torch.ones_like(x), x)
    found = torch_kernels.gated_linear(x, torch_kernels.pack_gated(weight))
    exact = torch_kernels.gated_linear(x.double(), weight.double())
    assert exact.count_nonzero() > 0
    torch.testing.assert_close(found.double(), exact, rtol=0.01, atol=1e-30)


def layouts() -> dict[str, Tensor]:
    """Returns inputs of 80 values in every memory layout that a caller may pass."""
    store = rows(200, torch.float32, 60)
    cube = store[:, :80].reshape(5, 12, 80)
    return {
        "a matrix": store[:, :80].contiguous(),
        "a cube": cube,
        "a deeper batch": cube.reshape(5, 3, 4, 80),
        "columns of a wider matrix": store[:, 7:87],
        "every other column": store[:, :160:2],
        "every third row": store[::3, :80],
        "rows from the middle": store[13:33, 120:],
        "a transposed matrix": rows(60, torch.float32, 80).t(),
        "a transposed batch": cube.transpose(0, 1),
        "one row for many": store[:1, :80].expand(8, 80),
        "no rows": store[:0, :80],
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", layouts())
def test_leading_dimensions_and_strides_are_free(name: str, dtype: torch.dtype) -> None:
    x = layouts()[name]
    if dtype == torch.bfloat16:
        # A strided copy keeps the layout in another dtype.
        x = (
            torch.empty_strided(x.shape, x.stride(), dtype=dtype).copy_(x)
            if 0 not in x.stride()
            else x.to(dtype)
        )
    weight, offset = (part.to(dtype) for part in (rows(80, dtype, 96, 1) / 90, rows(96, dtype, 1, 2)[0]))
    packed, gated = torch_kernels.pack(weight), torch_kernels.pack_gated(weight)
    flat = x.reshape(-1, 80).contiguous()
    # Another layout of the same rows may be summed in another order.
    near = 8 * torch.finfo(dtype).eps
    for found, whole in (
        (torch_kernels.linear(x, packed, offset), torch_kernels.linear(flat, packed, offset)),
        (torch_kernels.gated_linear(x, gated, offset), torch_kernels.gated_linear(flat, gated, offset)),
    ):
        torch.testing.assert_close(found, whole.view(found.shape), rtol=near, atol=8 * near)


def test_packing_leaves_the_weight_and_takes_no_gradients() -> None:
    weight = torch.nn.Parameter(rows(80, torch.float32, 96))
    before = weight.detach().clone()
    packed, gated = torch_kernels.pack(weight), torch_kernels.pack_gated(weight)
    x = rows(80, torch.float32, 8)
    assert not torch_kernels.linear(x, packed).requires_grad
    assert not torch_kernels.gated_linear(x, gated).requires_grad
    assert torch.equal(weight, before)
