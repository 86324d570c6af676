"""Checks that a family's table of names loads both formats and gives back what was stored, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decodery.errors import CheckpointError
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import Names
from decodery.models.decoders.llama import CONFIG, FAMILY, Llama, LlamaConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.families import find_family, names_of
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.names import rename, stack
from decodery.weights.parameters import export_parameters, load_parameters
from decodery.weights.transforms import TRANSPOSED
from tests.models import tiny
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf, tiny_model
from tests.weights.test_parameters import InMemory

VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "an own head": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "heads wider than the model": {"head_dim": 16, "num_key_value_heads": 1},
}


def stored(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: checkpoint.read(name, torch.float32) for name in checkpoint.tensors}


def exported(model: nn.Module, names: Names) -> dict[str, Tensor]:
    return dict(export_parameters(model, names.rules, 3))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["hub", "gguf"])
def test_what_was_loaded_is_exported_bit_for_bit(form: str, variant: str, tmp_path: Path) -> None:
    path = tiny_llama_folder(tmp_path / "hub", **VARIANTS[variant])
    if form == "gguf":
        path = tiny_llama_gguf(tmp_path / "tiny.gguf", path)
    with open_checkpoint(path) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
        found = find_family(checkpoint)
        names = names_of(found, found.family.config.read(checkpoint), checkpoint)
        assert_equal(exported(model, names), stored(checkpoint))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_hub_model_written_as_gguf_is_what_a_converter_writes_and_loads_the_same(
    variant: str, tmp_path: Path
) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", **VARIANTS[variant])
    with open_checkpoint(folder) as checkpoint:
        config = CONFIG.read(checkpoint)
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    converted = exported(model, FAMILY.gguf_names(config))
    with open_checkpoint(tiny_llama_gguf(tmp_path / "tiny.gguf", folder)) as checkpoint:
        assert_equal(converted, stored(checkpoint))
        assert replace(CONFIG.read(checkpoint), norm_eps=config.norm_eps) == config
    again = empty(config)
    load_parameters(again, InMemory(converted), FAMILY.gguf_names(config).rules, 3)
    assert_equal(dict(again.named_parameters()), dict(model.named_parameters()))


def test_a_model_with_packed_weights_is_not_exported(tmp_path: Path) -> None:
    with open_checkpoint(tiny_llama_folder(tmp_path)) as checkpoint:
        model = load_for_inference(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    assert isinstance(model, Llama)
    with pytest.raises(ValueError, match="packed"):
        exported(model, FAMILY.hub_names(CONFIG.from_hub(tiny.HUB)))


def empty(config: LlamaConfig) -> Llama:
    with torch.device("meta"):
        return Llama(config, torch_kernels)


FUSED = replace(HUB, qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))


def test_fused_and_separate_tensors_are_the_same_model() -> None:
    model = tiny_model(attention_bias=True)
    config = model.config
    assert isinstance(config, LlamaConfig)
    fused = exported(model, decoder_names(FUSED, config))
    separate = exported(model, decoder_names(HUB, config))
    for kind in ("weight", "bias"):
        parts = [separate[f"model.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert torch.equal(fused[f"model.layers.1.self_attn.qkv_proj.{kind}"], torch.cat(parts))
    again = empty(config)
    load_parameters(again, InMemory(fused), decoder_names(FUSED, config).rules, 3)
    assert_equal(dict(again.named_parameters()), dict(model.named_parameters()))


def test_queries_and_keys_of_swapped_sizes_are_refused() -> None:
    model = tiny_model()
    names = FAMILY.hub_names(CONFIG.from_hub(tiny.HUB))
    tensors = exported(model, names)
    q, k = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qk")
    tensors[q], tensors[k] = tensors[k], tensors[q]
    with pytest.raises(CheckpointError, match=r"misshaped: model\.layers\.0\.self_attn\.q_proj\.weight"):
        load_parameters(empty(CONFIG.from_hub(tiny.HUB)), InMemory(tensors), names.rules, 3)


def test_linear_maps_may_be_stored_transposed_and_their_biases_not() -> None:
    model = tiny_model(attention_bias=True, mlp_bias=True)
    config = CONFIG.from_hub({**tiny.HUB, "attention_bias": True, "mlp_bias": True})
    plain = exported(model, decoder_names(FUSED, config))
    names = decoder_names(FUSED, config, linear=TRANSPOSED)
    found = exported(model, names)
    for name, tensor in plain.items():
        linear = "_proj" in name and tensor.dim() == 2
        assert torch.equal(found[name], tensor.T if linear else tensor), name
    again = empty(config)
    load_parameters(again, InMemory(found), names.rules, 3)
    assert_equal(dict(again.named_parameters()), dict(model.named_parameters()))


class Mixture(nn.Module):
    """Has the parameters of a layer with experts and norms after its parts."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Module()
        layer.gate_up = nn.Parameter(torch.empty(3, 10, 4))
        layer.post_norm = nn.RMSNorm(4)
        layer.mlp_norm = nn.RMSNorm(4)
        self.layers = nn.ModuleList([layer])


def rows_of_experts() -> Iterator[tuple[str, Tensor]]:
    for e in range(3):
        for part in ("w1", "w3"):
            yield f"model.layers.0.experts.{e}.{part}.weight", torch.randn(5, 4)


def test_a_family_replaces_the_spellings_that_differ_and_adds_its_own_rules() -> None:
    spelling = replace(
        HUB,
        norms={"post_norm": "post_attention_layernorm", "mlp_norm": "pre_feedforward_layernorm"},
        qkv=(),
        gate_up=(),
    )
    experts = stack(
        "layers.{i}.gate_up",
        [f"model.layers.{{i}}.experts.{{e}}.{part}.weight" for part in ("w1", "w3")],
        experts=3,
    )
    names = decoder_names(spelling, CONFIG.from_hub(tiny.HUB), further=(experts,))
    tensors = dict(rows_of_experts())
    tensors["model.layers.0.post_attention_layernorm.weight"] = torch.randn(4)
    tensors["model.layers.0.pre_feedforward_layernorm.weight"] = torch.randn(4)
    with torch.device("meta"):
        model = Mixture()
    load_parameters(model, InMemory(tensors), names.rules, 1)
    assert torch.equal(
        model.get_parameter("layers.0.post_norm.weight"),
        tensors["model.layers.0.post_attention_layernorm.weight"],
    )
    assert_equal(dict(export_parameters(model, names.rules, 1)), tensors)
    assert not any("attn.qkv" in rule.target or "mlp.gate_up" in rule.target for rule in names.rules)


def test_the_matrices_of_the_vocabulary_and_of_the_values_are_delicate() -> None:
    config = CONFIG.from_hub(tiny.HUB)
    assert FAMILY.hub_names(config).delicate == (
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.*.self_attn.v_proj.weight",
    )
    assert decoder_names(GGUF, config).delicate == (
        "token_embd.weight",
        "output.weight",
        "blk.*.attn_v.weight",
    )
    assert rename("head.weight", "output.weight") in decoder_names(GGUF, config).rules
