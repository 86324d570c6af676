"""Checks that a model loaded for inference computes the same, whatever form its weights have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.packed_cache import PackedCache
from tests.kernels.native.fixtures import built
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


def said_to_be_tied(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_differs_from_the_embedding_it_should_be_is_kept(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = tiny_llama_folder(tmp_path, tie_word_embeddings=False)
    expected = [logits(model) for model in both(folder, dtype)]
    for model, right in zip(both(said_to_be_tied(folder), dtype), expected, strict=True):
        assert torch.equal(logits(model), right)


@built
def test_packed_weights_in_the_cache_have_the_head_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    folder = tiny_llama_folder(tmp_path / "m", tie_word_embeddings=False)
    expected = logits(both(folder, torch.float32)[0])
    cache = PackedCache(said_to_be_tied(folder))
    for is_cached in (False, True):
        assert (cache.read() is not None) == is_cached
        with open_checkpoint(folder) as checkpoint:
            kept = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels(), cache=cache)
            assert len(checkpoint.warnings) == 1
        assert isinstance(kept, Llama)
        torch.testing.assert_close(logits(kept), expected, atol=1e-4, rtol=0)
