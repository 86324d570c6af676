"""Checks that a model loaded for inference computes the same, whatever form its weights have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import CheckpointError
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf

VARIANTS: dict[str, dict[str, Any]] = {
    "a tied head": {},
    "an own head": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "biases and an own head": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
}
TOKENS = torch.randint(0, 97, (2, 50), generator=torch.Generator().manual_seed(0))


def both(path: Path, dtype: torch.dtype) -> tuple[Llama, Llama]:
    """Returns the model as it is trained and as it is run."""
    with open_checkpoint(path) as checkpoint:
        plain = load_model(checkpoint, dtype=dtype, kernels=torch_kernels)
        packed = load_for_inference(checkpoint, dtype=dtype, kernels=torch_kernels)
    assert isinstance(packed, Llama)
    return plain, packed


@torch.inference_mode()
def logits(model: Llama) -> Tensor:
    out: Tensor = model(TOKENS)
    return out


def weights(model: Llama) -> list[Tensor]:
    """Returns the matrices that a model multiplies by, with gate and up in any form."""
    found: list[Tensor] = [] if model.head is None else [model.head.weight]
    for block in model.layers:
        gate_up = block.mlp.gate_up.weight
        found += [block.attn.qkv.weight, block.attn.out.weight, block.mlp.down.weight]
        found += [gate_up] if isinstance(gate_up, Tensor) else gate_up
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_its_logits_are_those_of_the_plain_model(name: str, tmp_path: Path) -> None:
    plain, packed = both(tiny_llama_folder(tmp_path, **VARIANTS[name]), torch.float32)
    expected = logits(plain)
    assert expected.std() > 0.5
    torch.testing.assert_close(logits(packed), expected, atol=1e-5, rtol=0)
    packs = torch_kernels.pack(torch.ones(48, 48)).is_mkldnn
    assert [weight.is_mkldnn for weight in weights(packed)] == [packs] * len(weights(packed))
    assert not any(weight.is_mkldnn for weight in weights(plain))


@pytest.mark.parametrize("name", VARIANTS)
def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_model(name: str, tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path, **VARIANTS[name])
    exact = logits(both(folder, torch.float32)[0])
    plain, packed = (logits(model) for model in both(folder, torch.bfloat16))
    error = (plain - exact).abs().mean()
    assert 0 < error < 0.03 * exact.std()
    assert (packed - exact).abs().mean() <= 1.2 * error


def test_from_a_gguf_file_it_is_the_same(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", **VARIANTS["biases and an own head"])
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", folder)
    found, expected = (logits(both(path, torch.float32)[1]) for path in (file, folder))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_head_that_differs_from_the_embedding_it_should_be_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path, tie_word_embeddings=False)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tie_word_embeddings": True}))
    differs = pytest.raises(CheckpointError, match=r"lm_head\.weight differs .*tie_word_embeddings to false")
    with open_checkpoint(folder) as checkpoint, differs:
        load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()},
        folder / "model.safetensors",
    )
    with open_checkpoint(folder) as checkpoint:
        assert load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels) is not None
