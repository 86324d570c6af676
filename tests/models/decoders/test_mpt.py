"""Checks the settings of MPT that transformers ignores, against its model changed likewise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MptForCausalLM

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.layer_norm.mpt import MPT_FAMILY
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.decoders.families import write_folder
from tests.models.decoders.layer_norm_families import LAYER_NORM_FAMILIES, MPT_SIZES

TOKENS = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(LAYER_NORM_FAMILIES["mpt"], tmp_path)


def changed(folder: Path, tensors: Mapping[str, Tensor], **settings: Any) -> Tensor:
    """Returns our logits of a folder with other settings and tensors."""
    config = json.loads((folder / "config.json").read_text())
    attention = {**config["attn_config"], **settings.pop("attn_config", {})}
    config |= {**settings, "attn_config": attention}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    found: Tensor = model(TOKENS)
    return found


def test_the_mlp_is_as_wide_as_the_expansion_ratio_says(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    for layer in range(3):
        name = f"transformer.blocks.{layer}.ffn"
        tensors[f"{name}.up_proj.weight"] = tensors[f"{name}.up_proj.weight"][:96].clone()
        tensors[f"{name}.down_proj.weight"] = tensors[f"{name}.down_proj.weight"][:, :96].clone()
    theirs = MptForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for block in theirs.transformer.blocks:
            block.ffn.up_proj.weight[96:] = 0
        expected = theirs(TOKENS).logits
    found = changed(folder, tensors, expansion_ratio=2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_the_slopes_are_as_large_as_alibi_bias_max_says(folder: Path) -> None:
    theirs = MptForCausalLM.from_pretrained(folder).eval()
    build = theirs.transformer.build_mpt_alibi_tensor
    expected_plain = theirs(TOKENS).logits
    theirs.transformer.build_mpt_alibi_tensor = lambda *sizes, **options: build(
        *sizes, **{**options, "alibi_bias_max": 16}
    )
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    assert (expected - expected_plain).abs().max() > 0.1
    found = changed(folder, load_file(folder / "model.safetensors"), attn_config={"alibi_bias_max": 16})
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_without_alibi_positions_are_learned_and_logits_are_scaled(folder: Path) -> None:
    table = torch.randn(64, 48, generator=torch.Generator().manual_seed(1))
    theirs = MptForCausalLM.from_pretrained(folder).eval()
    theirs.transformer.build_mpt_alibi_tensor = lambda heads, length, **_: torch.zeros(heads, 1, length)
    with torch.no_grad():
        embedded = theirs.transformer.wte(TOKENS) + table[:40]
        expected = theirs(inputs_embeds=embedded).logits * 0.5
    tensors = {**load_file(folder / "model.safetensors"), "transformer.wpe.weight": table}
    found = changed(folder, tensors, attn_config={"alibi": False}, logit_scale=0.5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"no_bias": False}, "no_bias is False"),
        ({"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm'"),
        ({"attn_config": {"attn_type": "multiquery_attention"}}, "attn_type is 'multiquery_attention'"),
        ({"attn_config": {"qk_ln": True}}, "qk_ln is True"),
        ({"attn_config": {"prefix_lm": True}}, "prefix_lm is True"),
        ({"attn_config": {"rope": True}}, "rope is True"),
        ({"attn_config": {"clip_qkv": -6.0}}, "clip_qkv is -6.0"),
        ({"attn_config": {"softmax_scale": -1.0}}, "softmax_scale is -1.0"),
        ({"attn_config": {"alibi": False}, "learned_pos_emb": False}, "learned_pos_emb is False"),
        ({"logit_scale": "inv_sqrt_d_model"}, "logit_scale is 'inv_sqrt_d_model'"),
        ({"n_heads": 7}, "n_heads is 7"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MPT_FAMILY.config.from_hub({**MPT_SIZES, **settings})


def test_null_and_zero_do_not_clip() -> None:
    for clip in (None, 0, 0.0):
        settings = {**MPT_SIZES, "attn_config": {"clip_qkv": clip, "softmax_scale": None}}
        config = MPT_FAMILY.config.from_hub(settings)
        assert config.clip is None
        assert config.scale is None
        assert MPT_FAMILY.config.to_gguf(config, "mpt")[0]["mpt.attention.clamp_kqv"] == 0


@pytest.mark.parametrize("alibi", [True, False])
def test_a_gguf_file_tells_by_its_largest_bias_whether_there_is_alibi(alibi: bool) -> None:
    settings = {**MPT_SIZES, "attn_config": {"alibi": alibi, "alibi_bias_max": 16}, "expansion_ratio": 3}
    config = MPT_FAMILY.config.from_hub(settings)
    metadata, _ = MPT_FAMILY.config.to_gguf(config, "mpt")
    assert metadata["mpt.attention.max_alibi_bias"] == (16.0 if alibi else 0.0)
    assert metadata["mpt.feed_forward_length"] == 144
    assert config.alibi == (16.0 if alibi else None)
    assert MPT_FAMILY.config.from_hub(MPT_FAMILY.config.to_hub(config)) == config
