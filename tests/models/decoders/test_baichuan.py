"""Checks Baichuan, which transformers lacks, against its Llama with renamed weights and a formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from decodery.kernels.reference import torch_kernels
from decodery.models.decoders import baichuan
from decodery.models.decoders.baichuan import BAICHUAN
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.models.decoders.families import SIZES, Tiny, write_folder
from tests.weights.test_parameters import InMemory

TOKENS = torch.arange(40)[None]


def twins(folder: Path, **settings: Any) -> tuple[Any, InMemory]:
    """Returns a Llama, and the same weights as Baichuan stores them."""
    write_folder(Tiny("LlamaForCausalLM", {**SIZES, "num_key_value_heads": 4, **settings}), folder)
    with open_checkpoint(folder) as checkpoint:
        llama = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}.self_attn."
        parts = [tensors.pop(f"{name}{part}_proj.weight") for part in "qkv"]
        tensors[f"{name}W_pack.weight"] = torch.cat(parts)
    stored = InMemory(tensors)
    del config["num_key_value_heads"]
    config |= {"architectures": ["BaichuanForCausalLM"], "model_max_length": 512}
    stored.format, stored.config = "safetensors", config
    return llama, stored


def opened(stored: Any) -> Any:
    return load_model(stored, dtype=torch.float32, kernels=torch_kernels)


def in_gguf(model: Any, stored: Any) -> Any:
    config = BAICHUAN.config.read(stored)
    metadata, tensors = BAICHUAN.config.to_gguf(config, "baichuan")
    assert BAICHUAN.gguf_names is not None
    tensors |= dict(export_parameters(model, BAICHUAN.gguf_names(config).rules, config.layers))
    written = InMemory(tensors)
    written.format, written.config = "gguf", metadata
    return opened(written)


def test_baichuan_7b_is_its_llama(tmp_path: Path) -> None:
    llama, stored = twins(tmp_path)
    model = opened(stored)
    assert torch.equal(model(TOKENS), llama(TOKENS))
    torch.testing.assert_close(in_gguf(model, stored)(TOKENS), llama(TOKENS), atol=1e-5, rtol=1e-5)


def test_the_rows_of_the_head_of_baichuan_2_have_length_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama, stored = twins(tmp_path)
    plain = llama(TOKENS)
    llama.head.weight.data = F.normalize(llama.head.weight)
    monkeypatch.setattr(baichuan, "UNIT_HEAD_VOCABULARY", 97)
    model = opened(stored)
    torch.testing.assert_close(model(TOKENS), llama(TOKENS), atol=1e-5, rtol=1e-5)
    assert (model(TOKENS) - plain).abs().max() > 0.1
    torch.testing.assert_close(in_gguf(model, stored)(TOKENS), llama(TOKENS), atol=1e-5, rtol=1e-5)


def formula(tensors: dict[str, Tensor], layers: int) -> Tensor:
    """Returns the logits of Baichuan 13B in float64."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * tensors[f"{name}.weight"].double()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tensors[f"{name}.weight"].double().T

    x = tensors["model.embed_tokens.weight"].double()[TOKENS[0]]
    distances = torch.arange(40)[None] - torch.arange(40)[:, None]
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / 4) for head in range(4)], dtype=torch.float64)
    bias = (slopes[:, None, None] * distances).masked_fill(distances > 0, -torch.inf)
    for layer in range(layers):
        name = f"model.layers.{layer}."
        qkv = linear(norm(x, f"{name}input_layernorm"), f"{name}self_attn.W_pack")
        q, k, v = qkv.view(40, 3, 4, 12).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) / 12**0.5 + bias).softmax(-1)
        x = x + linear((weights @ v).transpose(0, 1).reshape(40, 48), f"{name}self_attn.o_proj")
        normed = norm(x, f"{name}post_attention_layernorm")
        gate, up = (linear(normed, f"{name}mlp.{part}_proj") for part in ("gate", "up"))
        x = x + linear(F.silu(gate) * up, f"{name}mlp.down_proj")
    return linear(norm(x, "model.norm"), "lm_head")


def test_forty_layers_have_a_bias_that_falls_with_the_distance_and_do_not_rotate(tmp_path: Path) -> None:
    llama, stored = twins(tmp_path, num_hidden_layers=40)
    model = opened(stored)
    expected = formula(stored.held, 40)
    found = model.double()(TOKENS)[0]
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert (found - llama(TOKENS)[0]).abs().max() > 0.1
    again = in_gguf(opened(stored), stored)
    torch.testing.assert_close(again.double()(TOKENS)[0], found, atol=1e-4, rtol=1e-4)
