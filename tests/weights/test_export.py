"""Checks that one set of rules loads a checkpoint and gives back exactly what was stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decodery.errors import CheckpointError
from decodery.kernels.packed_weights import Format
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.native_layout import Packing
from decodery.weights.names import Rule, merge, rename, stack
from decodery.weights.parameters import export_parameters, load_parameters
from decodery.weights.transforms import TRANSPOSED, Transform, grouped, offset, permuted
from tests.weights.files import random_blocks
from tests.weights.test_parameters import RULES, InMemory, meta, stored


def empty(**shapes: Sequence[int]) -> nn.Module:
    """Returns a module with a parameter of each shape, on the meta device."""
    module = nn.Module()
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.empty(*shape, device="meta")))
    return module


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def loaded(
    module: nn.Module, tensors: dict[str, Tensor], rules: Sequence[Rule], layers: int = 0
) -> nn.Module:
    load_parameters(module, InMemory(tensors), rules, layers)
    return module


def assert_gives_back(
    module: nn.Module, tensors: dict[str, Tensor], rules: Sequence[Rule], layers: int = 0
) -> None:
    found = dict(export_parameters(loaded(module, tensors, rules, layers), rules, layers))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].is_contiguous()


@pytest.mark.parametrize("tied", [True, False])
def test_export_gives_back_the_stored_tensors_bit_for_bit(tied: bool) -> None:
    assert_gives_back(meta(tied), stored(head=not tied), RULES, layers=2)


@pytest.mark.parametrize(
    "transform",
    [TRANSPOSED, *map(permuted, (2, 3, 6)), permuted(2, 4), permuted(1, 10), grouped(2, 2), grouped(4, 1)],
    ids=["transposed", "2", "3", "6", "4 of 6", "10 of 12", "2 heads", "4 heads, 1 of keys"],
)
def test_storing_is_the_inverse_of_loading_both_ways(transform: Transform) -> None:
    tensor = some(12, 5)
    assert torch.equal(transform.store(transform.load(tensor)), tensor)
    assert torch.equal(transform.load(transform.store(tensor)), tensor)


def test_an_offset_is_exact_for_stored_values_from_half_to_two() -> None:
    transform = offset(1.0)
    tensor = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) * 1.5 + 0.5
    assert torch.equal(transform.load(tensor), tensor - 1)
    assert torch.equal(transform.store(transform.load(tensor)), tensor)
    beyond = 40 * some(10_000)
    torch.testing.assert_close(transform.store(transform.load(beyond)), beyond, atol=1e-6, rtol=1e-6)


def test_stored_matrices_may_be_transposed_as_a_conv1d() -> None:
    rules = [rename("w", "c_attn.weight", TRANSPOSED), rename("b", "c_attn.bias")]
    tensors = {"c_attn.weight": some(4, 12), "c_attn.bias": some(12)}
    module = empty(w=(12, 4), b=(12,))
    assert_gives_back(module, tensors, rules)
    assert torch.equal(module.w, tensors["c_attn.weight"].T)


def test_parts_of_different_sizes_are_divided_as_the_rule_says() -> None:
    rules = [
        merge(
            f"layer.{kind}",
            [f"{part}.{kind}" for part in "qkv"],
            (permuted(4), permuted(2), None),
            (16, 8, 8),
        )
        for kind in ("weight", "bias")
    ]
    with torch.device("meta"):
        module = nn.ModuleDict({"layer": nn.Linear(6, 32)})
    rows = {"q": 16, "k": 8, "v": 8}
    tensors = {f"{part}.weight": some(count, 6) for part, count in rows.items()}
    tensors |= {f"{part}.bias": some(count) for part, count in rows.items()}
    assert_gives_back(module, tensors, rules)


def test_parts_whose_sizes_are_not_the_rules_are_misshaped_though_their_sum_is_right() -> None:
    rules = [merge("w", ("q", "k"), rows=(8, 4))]
    with pytest.raises(CheckpointError, match=r"misshaped: q \[4, 3\] \+ k \[8, 3\] for w \[12, 3\]"):
        loaded(empty(w=(12, 3)), {"q": some(4, 3), "k": some(8, 3)}, rules)


def test_experts_are_stacked_and_their_gate_and_up_merged() -> None:
    tensors = {
        f"l.{i}.e.{e}.{part}": some(5, 4) + 10 * e + i for i in range(2) for e in range(3) for part in "gu"
    }
    rules = [stack("layers.{i}.w", ("l.{i}.e.{e}.g", "l.{i}.e.{e}.u"), 3)]
    module = nn.ModuleDict({"layers": nn.ModuleList(empty(w=(3, 10, 4)) for _ in range(2))})
    assert_gives_back(module, tensors, rules, layers=2)
    weight = module.get_parameter("layers.1.w")
    for e in range(3):
        assert torch.equal(weight[e], torch.cat([tensors[f"l.1.e.{e}.g"], tensors[f"l.1.e.{e}.u"]]))


@pytest.mark.parametrize("experts", [1, 3])
def test_experts_may_be_stored_one_by_one_or_stacked(experts: int) -> None:
    one_by_one = [stack("w", ("{e}.up",), experts), stack("b", ("{e}.bias",), experts)]
    whole = [stack("w", ("gates", "ups"), experts), stack("b", ("b.gates", "b.ups"), experts)]
    single = {f"{e}.up": some(6, 4) + e for e in range(experts)} | {
        f"{e}.bias": some(6) + e for e in range(experts)
    }
    assert_gives_back(empty(w=(experts, 6, 4), b=(experts, 6)), single, one_by_one)
    stacked = {"gates": some(experts, 3, 4), "ups": some(experts, 3, 4) + 1}
    stacked |= {"b.gates": some(experts, 3), "b.ups": some(experts, 3) + 1}
    assert_gives_back(empty(w=(experts, 6, 4), b=(experts, 6)), stacked, whole)


@pytest.mark.parametrize(
    ("stored_shapes", "named"),
    [
        ([(6, 4), (6, 4)], r"missing: 2\.up"),
        ([(6, 4), (5, 4), (6, 4)], r"misshaped: 0\.up \[6, 4\] \+ 1\.up \[5, 4\]"),
        ([(6, 4), (6, 3), (6, 4)], r"misshaped: 0\.up"),
        ([(4, 6), (4, 6), (4, 6)], r"misshaped: 0\.up"),
        ([(6, 4)] * 4, r"unexpected: 3\.up"),
    ],
)
def test_experts_that_do_not_fit_are_one_error(stored_shapes: list[tuple[int, int]], named: str) -> None:
    tensors = {f"{e}.up": some(*shape) for e, shape in enumerate(stored_shapes)}
    with pytest.raises(CheckpointError, match=named):
        loaded(empty(w=(3, 6, 4)), tensors, [stack("w", ("{e}.up",), 3)])


def test_of_several_spellings_the_first_is_exported() -> None:
    rules = [merge("weight", ("q", "k")), rename("weight", "fused")]
    with torch.device("meta"):
        module = nn.Linear(2, 4, bias=False)
    fused = some(4, 2)
    exported = dict(export_parameters(loaded(module, {"fused": fused}, rules), rules, 0))
    assert exported.keys() == {"q", "k"}
    assert torch.equal(torch.cat([exported["q"], exported["k"]]), fused)


def test_a_parameter_without_a_rule_or_with_other_rows_is_not_exported() -> None:
    module = nn.Linear(2, 4, bias=False)
    with pytest.raises(ValueError, match="no rule names how weight is stored"):
        list(export_parameters(module, [], 0))
    with pytest.raises(ValueError, match="4 rows"):
        list(export_parameters(module, [merge("weight", ("a", "b", "c"))], 0))


@pytest.mark.parametrize("transform", [TRANSPOSED, permuted(2)], ids=["elements", "rows"])
def test_blocks_are_packed_as_stored_only_if_rows_move_as_a_whole(
    transform: Transform, tmp_path: Path
) -> None:
    blocks = random_blocks(gguf.GGMLQuantizationType.Q8_0, 8, 64)
    blocks.reshape(-1, 34)[:, :2] = np.array([0.5], np.float16).view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
        dense = checkpoint.read("w", torch.float32)
        codes = Packing().codes(checkpoint, "w", transform)
        expected = transform.load(dense)
    if transform.moves_rows:
        assert codes.format == Format.INT8
        assert torch.equal(transform.store(codes.codes), torch.from_numpy(blocks))
    else:
        assert codes.format == Format.FLOAT32
        assert torch.equal(codes.codes, expected)
