"""Checks what the settings of a Gemma 4 mean, and what its files have that those of others lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.gemma4.gemma4 import GEMMA4
from decodery.models.layers.rope import ProportionalRope, Rope
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import Tiny, write_folder
from tests.models.decoders.rms_norm_families import GEMMA4 as SETTINGS
from tests.models.decoders.rms_norm_families import RMS_NORM_FAMILIES
from tests.models.decoders.test_every_family import InPages, some_tokens
from tests.models.test_config_reader import Metadata
from tests.weights.test_parameters import InMemory

TABLE = GEMMA4.config
BARE = {
    key: value
    for key, value in SETTINGS.items()
    if key not in ("head_dim", "global_head_dim", "sliding_window", "rope_parameters", "num_key_value_heads")
    and "per_layer_input" not in key
}
SHARED = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}


def opened(folder: Path) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def test_missing_keys_have_their_defaults() -> None:
    config = TABLE.from_hub({**BARE, "num_hidden_layers": 7, "num_attention_heads": 8})
    assert (config.head_dim, config.full_head_dim, config.kv_heads, config.full_kv_heads) == (256, 512, 4, 4)
    assert config.windows == (512,) * 5 + (None, None)
    assert config.rope == {
        "full_attention": ProportionalRope(1e6, 0.25),
        "sliding_attention": Rope(1e4),
    }
    assert (config.layer_width, config.experts, config.shared_kv, config.tied_head) == (256, 0, 0, True)
    assert (config.key_is_value, config.wide_shared) == (False, False)


def test_heads_of_full_layers_are_larger_and_fewer_if_values_are_keys() -> None:
    settings = {**SETTINGS, "num_global_key_value_heads": 1}
    config = TABLE.from_hub(settings)
    assert (config.full_kv_heads, config.heads_of(2)) == (2, (4, 2, 2))
    config = TABLE.from_hub({**settings, "attention_k_eq_v": True})
    assert (config.heads_of(0), config.heads_of(2)) == ((4, 2, 2), (4, 1))
    assert (config.size_of(0), config.size_of(2)) == (12, 20)


def test_sizes_of_layers_may_stand_in_objects_for_each_as_transformers_5_writes_them() -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "global_head_dim"}
    each = {"2": {"head_dim": 20, "num_key_value_heads": 1}}
    config = TABLE.from_hub({**settings, "attention_k_eq_v": True, "per_layer_config": each})
    assert (config.full_head_dim, config.full_kv_heads) == (20, 1)
    assert TABLE.from_hub(TABLE.to_hub(config)) == config
    for wrong in (
        {"0": {"head_dim": 20}},
        {"3": {"head_dim": 20}},
        {"x": {}},
        {"2": 20},
        {"2": {"head_dim": -4}},
    ):
        with pytest.raises(ModelError, match=r"per_layer_config|, 2|head_dim"):
            TABLE.from_hub({**settings, "per_layer_config": wrong})


def test_the_last_layer_sees_all_keys_whatever_its_kind() -> None:
    config = TABLE.from_hub({**SETTINGS, "layer_types": ["sliding_attention"] * 3})
    assert config.windows == (9, 9, None)


def test_layers_without_keys_read_those_of_the_last_layer_of_their_kind() -> None:
    types = ["sliding_attention", "sliding_attention", "full_attention"] * 3
    config = TABLE.from_hub(
        {**SETTINGS, "num_hidden_layers": 9, "layer_types": types, "num_kv_shared_layers": 5}
    )
    assert [config.source(layer) for layer in range(9)] == [None] * 4 + [3, 2, 3, 3, 2]
    model: Any = GEMMA4.build["causal"](config, torch_kernels)
    assert [kv.layer for kv in model.kv_shape.layers] == [0, 1, 2, 3]
    assert [kv.k_width for kv in model.kv_shape.layers] == [12, 12, 20, 12]


def test_without_shared_keys_no_mlp_is_wider() -> None:
    assert not TABLE.from_hub({**SETTINGS, "use_double_wide_mlp": True}).wide_shared


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_kv_shared_layers": 3}, "num_kv_shared_layers is 3; it must be such that each kind"),
    ({"num_kv_shared_layers": 2}, "num_kv_shared_layers is 2; it must be such that each kind"),
    ({"num_kv_shared_layers": -1}, "num_kv_shared_layers is -1"),
    ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention is 'all'"),
    ({"vocab_size_per_layer_input": 96}, r"vocab_size_per_layer_input is 96; it must be vocab_size \(97\)"),
    ({"hidden_size_per_layer_input": -2}, "hidden_size_per_layer_input is -2"),
    ({"global_head_dim": 21}, "global_head_dim is 21"),
    ({"head_dim": 11}, "head_dim is 11"),
    ({"num_key_value_heads": 3}, "num_key_value_heads is 3; it must be a divisor of num_attention_heads"),
    ({"attention_k_eq_v": True, "num_global_key_value_heads": 3}, "num_global_key_value_heads is 3"),
    ({"enable_moe_block": True}, "num_experts is missing"),
    ({"enable_moe_block": True, "num_experts": 4}, "top_k_experts is missing; it must be at least 1"),
    ({"enable_moe_block": True, "num_experts": 4, "top_k_experts": 5}, r"at most num_experts \(4\)"),
    (
        {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2},
        "moe_intermediate_size is missing; it must be at least 1",
    ),
    ({"layer_types": ["chunked_attention"] * 3}, "layer_types has 'chunked_attention'"),
    ({"hidden_activation": "relu"}, "hidden_activation is 'relu'"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 1.5}}},
        "partial_rotary_factor is 1.5; it must be at most 1",
    ),
    (
        {"rope_parameters": {"sliding_attention": {"rope_type": "proportional", "rope_theta": 1e4}}},
        "rope_type is 'proportional'",
    ),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=str)
def test_an_absurd_or_unsupported_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TABLE.from_hub({**SETTINGS, **settings})


def test_text_is_generated_also_where_images_are_read_in_both_directions() -> None:
    assert TABLE.from_hub({**SETTINGS, "use_bidirectional_attention": "vision"}) == TABLE.from_hub(SETTINGS)


def test_proportional_frequencies_are_those_of_the_whole_head_and_then_zero() -> None:
    found = ProportionalRope(1e3, 0.5, 2.0).frequencies(20, 0)
    assert torch.equal(found[:5], Rope(1e3).frequencies(20, 0)[:5] / 2)
    assert not found[5:].any()


def changed(folder: Path, to: Path, change: Any) -> Any:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    to.mkdir()
    save_file(tensors, to / "model.safetensors")
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    return opened(to)


def test_published_keys_of_layers_that_read_others_are_left_unused(tmp_path: Path) -> None:
    folder = write_folder(RMS_NORM_FAMILIES["gemma 4"], tmp_path / "stored")

    def add(tensors: dict[str, Tensor]) -> None:
        for name in ("k_proj", "v_proj", "k_norm"):
            stored = f"model.layers.4.self_attn.{name}.weight"
            assert stored not in tensors
            tensors[stored] = torch.ones(3)

    tokens = some_tokens(2, 20)
    assert torch.equal(changed(folder, tmp_path / "more", add)(tokens), opened(folder)(tokens))


@pytest.mark.parametrize("part", ["layer_scalar", "embed_tokens_per_layer", "per_layer_model_projection"])
def test_each_part_of_its_own_changes_the_logits(part: str, tmp_path: Path) -> None:
    folder = write_folder(RMS_NORM_FAMILIES["gemma 4"], tmp_path / "stored")

    def shift(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            tensors[name] = tensors[name].flip(0) + 0.5

    tokens = some_tokens(2, 20)
    with torch.no_grad():
        apart = (changed(folder, tmp_path / "other", shift)(tokens) - opened(folder)(tokens)).abs().max()
    assert apart > 0.1


def as_gguf(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    model = opened(folder)
    assert GEMMA4.gguf_names is not None
    metadata, tensors = TABLE.to_gguf(model.config, "gemma4")
    rules = GEMMA4.gguf_names(model.config).rules
    return metadata, tensors | dict(export_parameters(model, rules, model.config.layers))


def from_gguf(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    stored = InMemory(tensors)
    stored.format, stored.config = "gguf", metadata
    return load_model(stored, dtype=torch.float32, kernels=torch_kernels)


def test_a_gguf_file_lists_widths_and_heads_by_layer_and_divides_still_pairs_by_much(tmp_path: Path) -> None:
    metadata, tensors = as_gguf(write_folder(RMS_NORM_FAMILIES["gemma 4"], tmp_path / "wide"))
    assert metadata["gemma4.feed_forward_length"] == [80, 80, 80, 160, 160]
    assert metadata["gemma4.attention.sliding_window_pattern"] == [True, True, False, True, False]
    sizes = [metadata[f"gemma4.attention.key_length{end}"] for end in ("", "_swa")]
    assert sizes == [20, 12]
    assert tensors["rope_freqs.weight"].tolist() == [1.0] * 5 + [pytest.approx(1e30)] * 5
    name = "gemma 4 with experts, keys as values"
    metadata, tensors = as_gguf(write_folder(RMS_NORM_FAMILIES[name], tmp_path / "experts"))
    assert metadata["gemma4.attention.head_count_kv"] == [1, 2, 1]
    assert "blk.0.attn_v.weight" not in tensors
    assert from_gguf(metadata, tensors).config.rope["full_attention"] == ProportionalRope(1e3, 0.5)


def test_gate_and_up_of_experts_may_be_two_tensors_and_a_scale_may_be_missing(tmp_path: Path) -> None:
    name = "gemma 4 with experts, keys as values"
    metadata, tensors = as_gguf(write_folder(RMS_NORM_FAMILIES[name], tmp_path))
    tokens = some_tokens(2, 20)
    for layer in range(3):
        tensors[f"blk.{layer}.layer_output_scale.weight"] = torch.ones(1)
    expected = from_gguf(metadata, tensors)(tokens)
    for layer in range(3):
        gate, up = tensors.pop(f"blk.{layer}.ffn_gate_up_exps.weight").chunk(2, 1)
        tensors[f"blk.{layer}.ffn_gate_exps.weight"] = gate.contiguous()
        tensors[f"blk.{layer}.ffn_up_exps.weight"] = up.contiguous()
        del tensors[f"blk.{layer}.layer_output_scale.weight"]
    assert torch.equal(from_gguf(metadata, tensors)(tokens), expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"feed_forward_length": [80, 80, 80, 160, 240]}, "feed_forward_length"),
        ({"feed_forward_length": [80, 90, 80, 160, 160]}, "feed_forward_length"),
        ({"feed_forward_length": [80]}, "feed_forward_length"),
        ({"attention.head_count_kv": [1, 2, 1, 1, 1]}, "head_count_kv"),
        ({"attention.value_length": 12}, "value_length"),
        ({"rope.dimension_count_swa": 6}, "dimension_count_swa"),
        ({"attention.shared_kv_layers": 5}, "shared_kv_layers"),
    ],
)
def test_a_gguf_file_whose_layers_do_not_fit_is_refused_by_key(
    keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    metadata, tensors = as_gguf(write_folder(RMS_NORM_FAMILIES["gemma 4"], tmp_path))
    with pytest.raises(ModelError, match=message):
        TABLE.from_gguf(Metadata({**metadata, **{f"gemma4.{key}": keys[key] for key in keys}}, tensors))


@built
def test_heads_of_the_published_sizes_run_natively(tmp_path: Path) -> None:
    settings = {**SETTINGS, "head_dim": 256, "global_head_dim": 512, "num_key_value_heads": 1}
    folder = write_folder(Tiny("Gemma4ForCausalLM", settings), tmp_path)
    with open_checkpoint(folder) as checkpoint:
        native: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())
    tokens = some_tokens(40)
    whole = InPages(native).logits(tokens)
    assert torch.equal(InPages(native).logits(tokens, 7, 1, 20, 12), whole)
    expected = opened(folder)(tokens[None])[0]
    assert (whole - expected).abs().max() < 1e-2 * expected.abs().max()
