from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.names import merge, only_expert, rename, stack
from decodery.weights.parameters import export_parameters, load_parameters
from decodery.weights.transforms import TRANSPOSED, grouped, permuted, reordered, without_first
from tests.weights.files import write_gguf


class InMemory(Checkpoint):
    """Holds a checkpoint of tensors in memory, and counts the reads."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.path = Path("memory")
        self.held = tensors
        self.reads: list[str] = []
        self.tensors = {
            name: TensorInfo(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), t.nbytes)
            for name, t in tensors.items()
        }

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        self.reads.append(info.name)
        return self.held[info.name].to(dtype)

    def close(self) -> None:
        pass


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12, bias=False)
        self.norm = nn.LayerNorm(4)


class Tiny(nn.Module):
    """Has two blocks between an embedding and a head, tied or not."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6, bias=False)
        self.blocks: Any = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight


RULES = (
    rename("embed.weight", "tok.w"),
    merge("blocks.{i}.qkv.weight", ("b.{i}.q", "b.{i}.k", "b.{i}.v"), (permuted(2), None, None)),
    rename("blocks.{i}.norm.weight", "b.{i}.norm"),
    rename("blocks.{i}.norm.bias", "b.{i}.norm_bias", optional=True),
    rename("head.weight", "out.w", optional=True),
)


def stored(bias: bool = True, head: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {"tok.w": some(6, 4)}
    for i in range(2):
        tensors |= {f"b.{i}.{name}": some(4, 4) for name in "qkv"} | {f"b.{i}.norm": some(4)}
        tensors |= {f"b.{i}.norm_bias": some(4)} if bias else {}
    return tensors | ({"out.w": some(6, 4)} if head else {})


def meta(tied: bool = False) -> Tiny:
    with torch.device("meta"):
        return Tiny(tied)


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def check_filled(module: Tiny, tensors: Mapping[str, torch.Tensor]) -> None:
    assert torch.equal(module.embed.weight, tensors["tok.w"].to(module.embed.weight.dtype))
    for i, block in enumerate(module.blocks):
        q, k, v = (tensors[f"b.{i}.{name}"] for name in "qkv")
        expected = torch.cat([permuted(2).load(q), k, v]).to(block.qkv.weight.dtype)
        assert torch.equal(block.qkv.weight, expected)
        assert torch.equal(block.norm.weight, tensors[f"b.{i}.norm"].to(block.norm.weight.dtype))


@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("columns", [(), (5,)], ids=["bias", "weight"])
def test_permuted_undoes_the_converters_permutation(heads: int, columns: tuple[int, ...]) -> None:
    weights = torch.randn(heads * 8, *columns)
    # The permutation that llama.cpp's converter applies, in its own terms.
    stored = (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )
    assert torch.equal(permuted(heads).load(stored), weights)
    assert not torch.equal(permuted(heads).load(weights), weights)


def test_a_part_of_each_head_is_permuted_and_the_rest_stays() -> None:
    stored = torch.tensor([0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15])
    assert permuted(2, 4).load(stored).tolist() == [0, 2, 1, 3, 4, 5, 10, 12, 11, 13, 14, 15]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_rows_that_are_stored_by_the_heads_of_keys_become_all_queries_all_keys_all_values(
    heads: int, kv_heads: int
) -> None:
    def rows(kind: int, head: int) -> list[list[int]]:
        return [[kind, head, element] for element in range(3)]

    each = heads // kv_heads
    stored: list[list[int]] = []
    for head in range(kv_heads):
        for query in range(head * each, (head + 1) * each):
            stored += rows(0, query)
        stored += rows(1, head) + rows(2, head)
    expected = [
        row
        for kind, count in enumerate((heads, kv_heads, kv_heads))
        for h in range(count)
        for row in rows(kind, h)
    ]
    assert grouped(heads, kv_heads).load(torch.tensor(stored)).tolist() == expected


def test_a_table_may_be_stored_with_unused_rows() -> None:
    stored = torch.arange(12.0).view(6, 2)
    assert torch.equal(without_first(2).load(stored), stored[2:])
    assert torch.equal(without_first(2).store(stored[2:]), torch.cat((torch.zeros(2, 2), stored[2:])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_meta", [True, False])
def test_every_parameter_is_filled_in_its_own_dtype(on_meta: bool, dtype: torch.dtype) -> None:
    module = (meta() if on_meta else Tiny()).to(dtype)
    before = dict(module.named_parameters())
    load_parameters(module, InMemory(stored()), RULES, layers=2)
    check_filled(module, stored())
    assert torch.equal(module.blocks[1].norm.bias, stored()["b.1.norm_bias"].to(dtype))
    for name, parameter in module.named_parameters():
        assert parameter.dtype == dtype
        assert parameter.is_contiguous()
        assert parameter.requires_grad
        assert on_meta or parameter is before[name]


@pytest.mark.parametrize("shape", [(70_001, 3), (3, 50_000), (40_000,)])
@pytest.mark.parametrize("merged", [True, False])
def test_large_parameters_are_copied_whole(merged: bool, shape: tuple[int, ...]) -> None:
    stored = torch.randn(shape)
    module = nn.Module()
    module.register_parameter("w", nn.Parameter(torch.zeros((2 if merged else 1) * shape[0], *shape[1:])))
    rule = merge("w", ("a", "a")) if merged else rename("w", "a")
    load_parameters(module, InMemory({"a": stored}), [rule], layers=0)
    assert torch.equal(module.get_parameter("w"), torch.cat([stored, stored]) if merged else stored)


def test_loading_on_meta_imports_no_part_of_torch_that_is_slow_to_import() -> None:
    code = (
        "import sys, torch; from torch import nn; from tests.weights.test_parameters import *\n"
        "from decodery.weights.transforms import offset\n"
        "with torch.device('meta'): module = nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(4))\n"
        "rules = [merge('0.weight', ('q', 'k'), (permuted(2), TRANSPOSED))]\n"
        "rules += [rename('1.weight', 'n', offset(1)), rename('0.bias', 'b', optional=True)]\n"
        "held = InMemory({'q': torch.ones(4, 4), 'k': torch.ones(4, 4), 'n': torch.ones(4)})\n"
        "before = set(sys.modules); load_parameters(module, held, rules, layers=0)\n"
        "print(sorted(set(sys.modules) - before))"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_whether_gradients_are_wanted_is_kept() -> None:
    module = meta().requires_grad_(False)
    load_parameters(module, InMemory(stored()), RULES, layers=2)
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("head", [True, False], ids=["stored twice", "stored once"])
@pytest.mark.parametrize("on_meta", [True, False])
def test_a_tied_parameter_is_loaded_once_and_stays_tied(on_meta: bool, head: bool) -> None:
    module = meta(tied=True) if on_meta else Tiny(tied=True)
    checkpoint = InMemory(stored(head=head))
    load_parameters(module, checkpoint, RULES, layers=2)
    assert module.head.weight is module.embed.weight
    assert checkpoint.reads.count("tok.w") == 1
    assert "out.w" not in checkpoint.reads
    check_filled(module, stored())


def test_a_missing_optional_parameter_keeps_what_the_module_initialised() -> None:
    module = Tiny()
    with torch.no_grad():
        module.blocks[0].norm.bias.fill_(7)
    load_parameters(module, InMemory(stored(bias=False)), RULES, layers=2)
    assert module.blocks[0].norm.bias.tolist() == [7, 7, 7, 7]
    check_filled(module, stored(bias=False))


def test_on_meta_a_missing_optional_parameter_is_initialised_by_its_owner() -> None:
    module = meta()
    load_parameters(module, InMemory(stored(bias=False)), RULES, layers=2)
    assert module.blocks[1].norm.bias.tolist() == [0, 0, 0, 0]
    check_filled(module, stored(bias=False))
    assert not any(parameter.is_meta for parameter in module.parameters())


def test_on_meta_an_optional_parameter_that_nobody_can_initialise_is_missing() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(2))

    rules = [rename("w", "stored", optional=True)]
    with torch.device("meta"):
        module = Bare()
    with pytest.raises(CheckpointError, match="missing: stored"):
        load_parameters(module, InMemory({}), rules, layers=0)


def test_all_problems_are_one_error_and_nothing_is_read() -> None:
    tensors = without(stored(), "b.0.norm", "b.1.v")
    tensors |= {"tok.w": torch.zeros(5, 4), "b.0.q": torch.zeros(4, 3), "extra": torch.zeros(1)}
    checkpoint = InMemory(tensors)
    with pytest.raises(CheckpointError) as raised:
        load_parameters(meta(), checkpoint, RULES, layers=2)
    message = str(raised.value)
    assert "missing: b.0.norm, b.1.v" in message
    assert "unexpected: extra" in message
    assert "tok.w [5, 4] for embed.weight [6, 4]" in message
    assert "b.0.q [4, 3] + b.0.k [4, 4] + b.0.v [4, 4] for blocks.0.qkv.weight [12, 4]" in message
    assert "\n" not in message
    assert checkpoint.reads == []


def test_a_long_list_of_names_is_cut() -> None:
    extras = {f"extra{i}": torch.zeros(1) for i in range(20)}
    with pytest.raises(CheckpointError, match=r"extra0, .*extra7 and 12 more$"):
        load_parameters(meta(), InMemory(stored() | extras), RULES, layers=2)


def test_a_layer_too_many_in_the_checkpoint_is_unexpected() -> None:
    with pytest.raises(CheckpointError, match=r"unexpected: b\.2\.norm"):
        load_parameters(meta(), InMemory(stored() | {"b.2.norm": torch.zeros(4)}), RULES, layers=2)


def test_ignored_patterns_may_be_left_unused() -> None:
    extras = {"rope_freqs.weight": torch.zeros(1), "b.0.rotary_emb.inv_freq": torch.zeros(1)}
    ignored = ("rope_freqs.weight", "*.rotary_emb.inv_freq")
    load_parameters(meta(), InMemory(stored() | extras), RULES, layers=2, ignored=ignored)


def test_a_parameter_without_a_rule_is_missing() -> None:
    with pytest.raises(CheckpointError, match=r"missing: embed.weight \(no rule names a source\)"):
        load_parameters(meta(), InMemory(without(stored(), "tok.w")), RULES[1:], layers=2)


def test_what_belongs_to_a_parameter_that_the_module_lacks_is_unexpected() -> None:
    rules = (*RULES, rename("blocks.{i}.qkv.bias", "b.{i}.bias", optional=True))
    load_parameters(meta(), InMemory(stored()), rules, layers=2)
    with pytest.raises(CheckpointError, match=r"unexpected: b\.1\.bias"):
        load_parameters(meta(), InMemory(stored() | {"b.1.bias": torch.zeros(12)}), rules, layers=2)


def test_part_of_an_optional_merge_is_an_error() -> None:
    rule = merge("bias", ("q", "k"), optional=True)
    module = nn.Linear(1, 4)
    rules = [rename("weight", "w"), rule]
    load_parameters(module, InMemory({"w": torch.zeros(4, 1)}), rules, layers=0)
    with pytest.raises(CheckpointError, match="missing: k"):
        load_parameters(module, InMemory({"w": torch.zeros(4, 1), "q": torch.zeros(2)}), rules, layers=0)


class Stack(nn.Module):
    def __init__(self, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, 4, 3))


@pytest.mark.parametrize("each", [False, True])
def test_a_transform_converts_the_matrix_of_each_expert(each: bool) -> None:
    order = reordered([2, 0, 3, 1])
    held = torch.randn(5, 4, 3)
    name = "w.{e}" if each else "w"
    tensors = {f"w.{e}": matrix for e, matrix in enumerate(held)} if each else {"w": held}
    rules = [stack("weight", [name], 5, [order])]
    for module in (Stack(5), Stack(5).to("meta")):
        load_parameters(module, InMemory(tensors), rules, layers=0)
        assert torch.equal(module.weight, held[:, [2, 0, 3, 1]])
        written = dict(export_parameters(module, rules, layers=0))
        assert written.keys() == tensors.keys()
        assert all(torch.equal(written[key], tensors[key]) for key in tensors)


def test_the_matrices_of_an_only_expert_are_no_stacks() -> None:
    gate, up = torch.randn(2, 3), torch.randn(2, 3)
    rules, module = [only_expert("weight", ["gate", "up"])], Stack(1)
    load_parameters(module, InMemory({"gate": gate, "up": up}), rules, layers=0)
    assert torch.equal(module.weight[0], torch.cat((gate, up)))
    assert [name for name, _ in export_parameters(module, rules, layers=0)] == ["gate", "up"]


def test_rows_in_another_order_are_all_there() -> None:
    rules = [rename("weight", "w", reordered([1, 0]))]
    with pytest.raises(CheckpointError, match="w "):
        load_parameters(nn.Linear(3, 2, bias=False), InMemory({"w": torch.zeros(3, 3)}), rules, layers=0)


def test_of_several_rules_for_a_target_the_first_that_the_checkpoint_can_serve_is_used() -> None:
    rules = [rename("weight", "fused"), merge("weight", ("q", "k"))]
    fused, parts = torch.randn(4, 2), {"q": torch.zeros(1, 2), "k": torch.ones(3, 2)}
    module = nn.Linear(2, 4, bias=False)
    load_parameters(module, InMemory({"fused": fused}), rules, layers=0)
    assert torch.equal(module.weight, fused)
    load_parameters(module, InMemory(parts), rules, layers=0)
    assert torch.equal(module.weight, torch.cat([parts["q"], parts["k"]]))


def test_a_transform_may_change_the_shape_and_is_checked_before_reading() -> None:
    rules = [rename("weight", "w", TRANSPOSED)]
    with torch.device("meta"):
        module = nn.Linear(2, 3, bias=False)
    with pytest.raises(CheckpointError, match="misshaped: w"):
        load_parameters(module, InMemory({"w": torch.zeros(3, 2)}), rules, layers=0)
    conv = torch.randn(2, 3)
    load_parameters(module, InMemory({"w": conv}), rules, layers=0)
    assert torch.equal(module.weight, conv.T)
    assert module.weight.is_contiguous()


def test_a_transform_that_cannot_take_the_shape_is_a_misshape() -> None:
    rules = [rename("weight", "w", permuted(3))]
    with pytest.raises(CheckpointError, match="misshaped: w"):
        load_parameters(nn.Linear(2, 4, bias=False), InMemory({"w": torch.zeros(4, 2)}), rules, layers=0)


def test_a_mapped_tensor_of_the_right_type_is_used_as_it_is(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf"))
    with torch.device("meta"):
        module = nn.RMSNorm(32)
    ignored = ("half", "ids", "q*")
    load_parameters(module, checkpoint, [rename("weight", "norm")], layers=0, ignored=ignored)
    assert module.weight.data_ptr() == checkpoint.read("norm", torch.float32).data_ptr()


def test_a_rule_with_more_sources_than_transforms_is_a_defect() -> None:
    with pytest.raises(ValueError, match="as many transforms as sources"):
        merge("w", ("a", "b"), (None,))
