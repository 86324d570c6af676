"""Checks how the families with LayerNorm read their settings and names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import Family
from decodery.models.decoders.layer_norm.bloom import BLOOM
from decodery.models.decoders.layer_norm.cohere import COHERE, COHERE2
from decodery.models.decoders.layer_norm.gpt1 import GPT1_FAMILY
from decodery.models.decoders.layer_norm.gpt2 import GPT2_FAMILY
from decodery.models.decoders.layer_norm.gpt_neo import GPT_NEO
from decodery.models.decoders.layer_norm.gpt_neox import GPT_NEOX
from decodery.models.decoders.layer_norm.gptj import GPTJ_FAMILY
from decodery.models.decoders.layer_norm.mpt import MPT_FAMILY
from decodery.models.decoders.layer_norm.opt import OPT_FAMILY
from decodery.models.decoders.layer_norm.phi import PHI, Phi
from decodery.models.decoders.layer_norm.stablelm import STABLELM
from decodery.models.decoders.layer_norm.starcoder import BIGCODE, STARCODER2
from decodery.models.families import find_family
from decodery.models.layers.attention import DenseAttend
from decodery.models.layers.rope import LinearRope, Rope
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters, load_parameters
from tests.models.decoders.families import write_folder
from tests.models.decoders.layer_norm_families import LAYER_NORM_FAMILIES, MPT_SIZES
from tests.models.test_config_reader import Metadata
from tests.weights.test_parameters import InMemory

SMALL = {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 97}
LONG = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 97,
}
STABLE = {**LONG, "num_key_value_heads": 4}
NEO = {"hidden_size": 48, "num_layers": 24, "num_heads": 4, "vocab_size": 97}

READ: list[tuple[Family[Any], Mapping[str, Any], Mapping[str, Any]]] = [
    (
        GPT2_FAMILY,
        SMALL,
        {
            "head_dim": 12,
            "kv_heads": 4,
            "mlp_width": 192,
            "context_length": 1024,
            "positions": 1024,
            "norm_eps": 1e-5,
            "activation": "gelu_tanh",
            "tied_head": True,
            "scaled": True,
            "scaled_by_layer": False,
        },
    ),
    (GPT2_FAMILY, {**SMALL, "n_inner": None, "activation_function": None}, {"mlp_width": 192}),
    (GPT2_FAMILY, {**SMALL, "n_ctx": 64, "n_positions": 32}, {"context_length": 32, "positions": 32}),
    (GPT2_FAMILY, {**SMALL, "activation_function": "gelu"}, {"activation": "gelu"}),
    (
        GPT_NEOX,
        LONG,
        {
            "kv_heads": 4,
            "head_dim": 24,
            "rotated": 6,
            "rope": Rope(10000.0),
            "activation": "gelu",
            "parallel": True,
            "attention_bias": True,
            "tied_head": False,
            "context_length": 2048,
        },
    ),
    (GPT_NEOX, {**LONG, "rotary_pct": 0.5, "rotary_emb_base": 500}, {"rotated": 12, "rope": Rope(500.0)}),
    (
        GPT_NEOX,
        {**LONG, "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 7}, "rotary_pct": 1.0},
        {"rotated": 12, "rope": Rope(7.0)},
    ),
    (
        GPT_NEOX,
        {**LONG, "rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_emb_base": 500},
        {"rotated": 6, "rope": LinearRope(500.0, 2.0)},
    ),
    (
        GPTJ_FAMILY,
        {**SMALL, "n_embd": 512},
        {
            "rotated": 64,
            "rope": Rope(10000.0),
            "mlp_width": 2048,
            "context_length": 2048,
            "tied_head": False,
            "activation": "gelu_tanh",
        },
    ),
    (
        GPT_NEO,
        NEO,
        {
            "windows": (None, 256) * 12,
            "context_length": 2048,
            "positions": 2048,
            "mlp_width": 192,
            "scaled": False,
            "attention_bias": False,
            "tied_head": True,
        },
    ),
    (
        GPT_NEO,
        {**NEO, "num_layers": 3, "attention_types": [[["global", "local"], 1], [["local"], 1]]},
        {"windows": (None, 256, 256)},
    ),
    (
        GPT_NEO,
        {**NEO, "num_layers": 2, "attention_types": [[["global"], 2]], "window_size": 3},
        {"windows": (None, None)},
    ),
    (
        GPT1_FAMILY,
        {**SMALL, "n_inner": 7, "afn": "gelu"},
        {"context_length": 512, "mlp_width": 192, "activation": "gelu_tanh", "tied_head": True},
    ),
    (GPT1_FAMILY, SMALL, {"positions": 512, "activation": "gelu_tanh", "scaled": True}),
    (
        STABLELM,
        STABLE,
        {
            "kv_heads": 4,
            "rotated": 6,
            "rope": Rope(10000.0),
            "qkv_bias": False,
            "head_norms": False,
            "parallel": False,
            "tied_head": False,
        },
    ),
    (STABLELM, {**STABLE, "rope_pct": 0.5, "norm_eps": 1e-3}, {"rotated": 12, "norm_eps": 1e-3}),
    (
        PHI,
        {**LONG, "num_key_value_heads": None},
        {"kv_heads": 4, "rotated": 12, "activation": "gelu_tanh", "head_norms": False, "tied_head": False},
    ),
    (PHI, {**LONG, "head_dim": 20}, {"rotated": 10, "head_dim": 20}),
    (BIGCODE, SMALL, {"kv_heads": 1, "tied_head": True, "context_length": 1024, "activation": "gelu_tanh"}),
    (BIGCODE, {**SMALL, "multi_query": False}, {"kv_heads": 4}),
    (
        STARCODER2,
        LONG,
        {
            "kv_heads": 2,
            "context_length": 4096,
            "rotated": 24,
            "bias": True,
            "windows": (),
            "tied_head": True,
            "activation": "gelu_tanh",
        },
    ),
    (STARCODER2, {**LONG, "sliding_window": 9}, {"windows": (9, 9, 9)}),
    (STARCODER2, {**LONG, "sliding_window": None}, {"windows": ()}),
    (
        OPT_FAMILY,
        LONG,
        {
            "mlp_width": 3072,
            "context_length": 2048,
            "positions": 2048,
            "activation": "relu",
            "embedding_width": 96,
            "pre_norm": True,
            "attention_bias": True,
            "tied_head": True,
        },
    ),
    (
        OPT_FAMILY,
        {**LONG, "ffn_dim": 80, "word_embed_proj_dim": 32},
        {"mlp_width": 80, "embedding_width": 32},
    ),
    (
        COHERE,
        LONG,
        {
            "rope": Rope(500000.0),
            "context_length": 8192,
            "logit_scale": 0.0625,
            "tied_head": True,
            "head_norms": False,
            "attention_bias": False,
            "rotated": 24,
        },
    ),
    (
        COHERE,
        {**LONG, "model_max_length": 131072, "max_position_embeddings": 8192},
        {"context_length": 131072},
    ),
    (
        BLOOM,
        {"n_embed": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97},
        {
            "width": 48,
            "mlp_width": 192,
            "context_length": 2048,
            "tied_head": True,
            "normed_residual": False,
            "extensible": True,
        },
    ),
    (MPT_FAMILY, MPT_SIZES, {"alibi": 8.0, "mlp_width": 192, "tied_head": True, "norm_eps": 1e-5}),
    (COHERE2, LONG, {"rope": Rope(10000.0), "windows": (4096, 4096, 4096), "logit_scale": 0.0625}),
    (COHERE2, {**LONG, "sliding_window": None}, {"windows": ()}),
    (COHERE2, {**LONG, "sliding_window_pattern": 2}, {"windows": (4096, None, 4096)}),
    (COHERE, {**LONG, "attention_bias": True}, {"attention_bias": True, "out_bias": True}),
]


@pytest.mark.parametrize(("family", "settings", "expected"), READ)
def test_a_config_json_means_this(
    family: Family[Any], settings: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    config = family.config.from_hub(settings)
    assert {name: getattr(config, name) for name in expected} == expected
    assert family.config.from_hub(family.config.to_hub(config)) == config


REFUSED: list[tuple[Family[Any], Mapping[str, Any], str]] = [
    (GPT2_FAMILY, {**SMALL, "n_head": 5}, "n_head is 5; it must be a divisor of n_embd"),
    (GPT2_FAMILY, {**SMALL, "activation_function": "tanhshrink"}, "activation_function is 'tanhshrink'"),
    (GPT2_FAMILY, {**SMALL, "add_cross_attention": True}, "add_cross_attention is True"),
    (GPT2_FAMILY, {**SMALL, "n_positions": 0}, "n_positions is 0"),
    (GPT2_FAMILY, {**SMALL, "layer_norm_epsilon": 0}, "layer_norm_epsilon is 0"),
    (GPT_NEOX, {**LONG, "rotary_pct": 0.9}, "rotary_pct is 0.9; it must be such that an even part"),
    (GPT_NEOX, {**LONG, "rotary_pct": 1.5}, "rotary_pct is 1.5"),
    (GPT_NEOX, {**LONG, "rotary_pct": 0.01}, "rotary_pct is 0.01"),
    (GPT_NEOX, {**LONG, "rope_parameters": {"rope_type": "proportional", "factor": 2.0}}, "proportional"),
    (GPT_NEOX, {**LONG, "use_parallel_residual": "yes"}, "use_parallel_residual is 'yes'"),
    (GPT_NEOX, {**LONG, "num_attention_heads": 7}, "num_attention_heads is 7; it must be a divisor"),
    (GPTJ_FAMILY, {**SMALL, "rotary_dim": None}, "rotary_dim is missing; it must be a number"),
    (GPTJ_FAMILY, {**SMALL, "rotary_dim": 14}, "rotary_dim is 14; it must be an even part of a head of 12"),
    (GPTJ_FAMILY, {**SMALL, "rotary_dim": 5}, "rotary_dim is 5"),
    (GPTJ_FAMILY, {**SMALL, "rotary_dim": 0}, "rotary_dim is 0"),
    *(
        (GPT_NEO, {**NEO, "attention_types": types}, "attention_types is .*for 24 layers")
        for types in (
            *("local", [[["global"], 23]], [[["global", "band"], 12]], [["global", 24]], [[]], [24]),
            *([], [[[], 24]], [[["global"], -24]], [[["global"], 24], [["local"], -1]]),
            *([[["global", "local"], 10**9]], [[["global"], 24], [[], 10**9]]),
        )
    ),
    (GPT_NEO, {**NEO, "num_layers": 2}, "attention_types is missing"),
    (GPT_NEO, {**NEO, "window_size": -1}, "window_size is -1"),
    (GPT1_FAMILY, {**SMALL, "afn": "gelu_new"}, "afn is 'gelu_new'"),
    (STABLELM, {**STABLE, "hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    (STABLELM, {**LONG, "num_key_value_heads": 3}, "num_key_value_heads is 3"),
    (PHI, {**LONG, "hidden_act": "mish"}, "hidden_act is 'mish'"),
    (PHI, {**LONG, "partial_rotary_factor": 0.3}, "partial_rotary_factor is 0.3"),
    (BIGCODE, {**SMALL, "multi_query": 1}, "multi_query is 1"),
    (STARCODER2, {**LONG, "sliding_window": -4}, "sliding_window is -4"),
    (OPT_FAMILY, {**LONG, "layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine is False"),
    (COHERE, {**LONG, "logit_scale": -1.0}, "logit_scale is -1.0"),
    (COHERE, {**LONG, "hidden_act": "relu"}, "hidden_act is 'relu'"),
    (OPT_FAMILY, {**LONG, "activation_function": "gelu_10"}, "activation_function is 'gelu_10'"),
    (STARCODER2, {**LONG, "num_attention_heads": 3}, "a divisor of"),
]


@pytest.mark.parametrize(("family", "settings", "message"), REFUSED)
def test_an_absurd_or_unsupported_setting_is_named(
    family: Family[Any], settings: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        family.config.from_hub(settings)


INEXPRESSIBLE: list[tuple[Family[Any], Mapping[str, Any], str]] = [
    (GPT2_FAMILY, {**SMALL, "scale_attn_weights": False}, "scale_attn_weights"),
    (GPT2_FAMILY, {**SMALL, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    (GPT2_FAMILY, {**SMALL, "activation_function": "relu"}, "activation_function 'relu'"),
    (GPT_NEOX, {**LONG, "hidden_act": "gelu_new"}, "hidden_act 'gelu_tanh'"),
    (GPT_NEOX, {**LONG, "attention_bias": False}, "attention_bias False"),
    (PHI, {**LONG, "qk_layernorm": True}, "qk_layernorm True"),
    (COHERE, {**LONG, "tie_word_embeddings": False}, "tie_word_embeddings False"),
    (STARCODER2, {**LONG, "sliding_window": 9}, "the window of these layers"),
]


@pytest.mark.parametrize(("family", "settings", "named"), INEXPRESSIBLE)
def test_what_gguf_cannot_express_is_not_written(
    family: Family[Any], settings: Mapping[str, Any], named: str
) -> None:
    assert family.gguf is not None
    with pytest.raises(ModelError, match=f"a GGUF file cannot express {named}"):
        family.config.to_gguf(family.config.from_hub(settings), family.gguf)


def loaded(folder: Path, context_length: int | None = None) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(
            checkpoint, dtype=torch.float32, kernels=torch_kernels, context_length=context_length
        )


@pytest.mark.parametrize("parallel", [True, False])
def test_a_stablelm_gguf_file_is_parallel_if_it_has_no_second_norm_whatever_its_key_says(
    parallel: bool,
) -> None:
    config = STABLELM.config.from_hub({**STABLE, "use_parallel_residual": parallel})
    metadata, tensors = STABLELM.config.to_gguf(config, "stablelm")
    metadata["stablelm.use_parallel_residual"] = True
    tensors |= {} if parallel else {"blk.0.ffn_norm.weight": torch.ones(96)}
    assert STABLELM.config.from_gguf(Metadata(metadata, tensors)).parallel == parallel


def test_queries_keys_and_values_of_a_phi_gguf_file_are_one_tensor_or_three(tmp_path: Path) -> None:
    model = loaded(write_folder(LAYER_NORM_FAMILIES["phi"], tmp_path))
    assert PHI.gguf_names is not None
    names = PHI.gguf_names(model.config)
    tensors = dict(export_parameters(model, names.rules, model.config.layers))
    assert "blk.0.attn_q.weight" in tensors
    for layer in range(3):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            tensors[f"blk.{layer}.attn_qkv.{kind}"] = torch.cat(parts)
    with torch.device("meta"):
        again = Phi(model.config, torch_kernels)
    load_parameters(again, InMemory(tensors), names.rules, 3)
    assert torch.equal(again(TOKENS), model(TOKENS))


TOKENS = torch.arange(20)[None]
RENAMED: list[tuple[str, Mapping[str, str], tuple[str, ...]]] = [
    ("gpt2", {"transformer.": ""}, ("h.0.attn.bias", "h.1.attn.masked_bias")),
    ("gpt2", {}, ("transformer.h.0.attn.bias", "transformer.h.2.attn.masked_bias", "lm_head.weight")),
    ("gpt_neox", {"embed_out.": "lm_head."}, ()),
    (
        "gpt_neox",
        {},
        (
            "gpt_neox.layers.0.attention.bias",
            "gpt_neox.layers.1.attention.masked_bias",
            "gpt_neox.layers.2.attention.rotary_emb.inv_freq",
        ),
    ),
    ("gptj", {}, ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias")),
    (
        "gpt_neo",
        {},
        (
            "transformer.h.0.attn.attention.bias",
            "transformer.h.1.attn.attention.masked_bias",
            "lm_head.weight",
        ),
    ),
    ("gpt1", {"transformer.": ""}, ("h.0.attn.bias", "lm_head.weight")),
    ("opt", {"model.": ""}, ("lm_head.weight",)),
    ("gpt1", {}, ("transformer.h.2.attn.bias", "transformer.position_ids")),
]


@pytest.mark.parametrize(("name", "changes", "buffers"), RENAMED)
def test_files_with_other_prefixes_and_with_buffers_of_older_versions_are_the_same_model(
    name: str, changes: Mapping[str, str], buffers: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write_folder(LAYER_NORM_FAMILIES[name], tmp_path)
    expected = loaded(folder)(TOKENS)
    tensors = load_file(folder / "model.safetensors")
    for old, new in changes.items():
        tensors = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    tensors |= {buffer: torch.ones(4, 4) for buffer in buffers}
    if "lm_head.weight" in buffers:
        embedding = next(
            key
            for key in tensors
            if key.endswith(("wte.weight", "embed_tokens.weight", "tokens_embed.weight"))
        )
        tensors["lm_head.weight"] = tensors[embedding].clone()
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(loaded(folder)(TOKENS), expected)


NAMES: list[tuple[str, str, Mapping[str, str]]] = [
    (
        "stablelm",
        "StableLMEpochForCausalLM",
        {"layer_norm_eps": "norm_eps", "partial_rotary_factor": "rope_pct"},
    ),
    ("mpt", "MPTForCausalLM", {}),
    ("falcon rw", "RWForCausalLM", {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}),
]


@pytest.mark.parametrize(("name", "architecture", "keys"), NAMES, ids=[name for name, *_ in NAMES])
def test_a_folder_with_an_older_name_and_its_keys_is_the_same_model(
    name: str, architecture: str, keys: Mapping[str, str], tmp_path: Path
) -> None:
    folder = write_folder(LAYER_NORM_FAMILIES[name], tmp_path)
    expected = loaded(folder)(TOKENS)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= settings.pop("rope_parameters", None) or {}
    renamed = {keys.get(key, key): value for key, value in settings.items()}
    renamed["architectures"] = [architecture]
    (folder / "config.json").write_text(json.dumps(renamed), encoding="utf-8")
    assert keys.keys() <= settings.keys()
    assert torch.equal(loaded(folder)(TOKENS), expected)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "gpt1", "opt"])
def test_a_model_with_learned_positions_opens_for_a_shorter_context_and_for_no_longer_one(
    name: str, tmp_path: Path
) -> None:
    folder = write_folder(LAYER_NORM_FAMILIES[name], tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    positions = settings.get("n_positions") or settings["max_position_embeddings"]
    shorter = loaded(folder, positions // 2)
    assert shorter.context_length == positions // 2
    assert torch.equal(shorter(TOKENS), loaded(folder)(TOKENS))
    with pytest.raises(ModelError, match="was trained for"):
        loaded(folder, positions + 1)


@pytest.mark.parametrize("name", LAYER_NORM_FAMILIES)
def test_what_was_loaded_is_stored_bit_for_bit(name: str, tmp_path: Path) -> None:
    folder = write_folder(LAYER_NORM_FAMILIES[name], tmp_path)
    with open_checkpoint(folder) as checkpoint:
        family = find_family(checkpoint).family
        config = family.config.read(checkpoint)
    assert family.config.from_hub(family.config.to_hub(config)) == config
    names = family.hub_names(config)
    found = dict(export_parameters(loaded(folder), names.rules, config.layers))
    stored = load_file(folder / "model.safetensors")
    # OPT never reads the first two rows.
    table = "model.decoder.embed_positions.weight"
    stored |= {key: torch.cat((torch.zeros_like(t[:2]), t[2:])) for key, t in stored.items() if key == table}
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in stored.items())


@pytest.mark.parametrize("name", ["gpt2", "opt 350m", "bloom", "falcon 7b"])
def test_embeddings_that_are_given_are_those_of_their_tokens(name: str, tmp_path: Path) -> None:
    model = loaded(write_folder(LAYER_NORM_FAMILIES[name], tmp_path))
    tokens, positions = torch.arange(20), torch.arange(20)
    given = torch.tensor([0, 3, 19])
    vectors = model.embed(tokens[given], positions[given])
    changed = tokens.clone()
    changed[given] = 96

    def hidden(ids: torch.Tensor, **options: Any) -> torch.Tensor:
        attend = DenseAttend(torch_kernels)
        found: torch.Tensor = model.hidden(ids[None], positions, attend, **options)
        return found

    with torch.no_grad():
        expected = hidden(tokens)
        assert (hidden(changed) - expected).abs().max() > 0.01
        found = hidden(changed, embedded=((torch.zeros_like(given), given), vectors))
    # A projection of embeddings rounds as the number of its rows has it.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
