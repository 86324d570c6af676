"""Checks that our Llama equals transformers' Llama, in every form in which it can be run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.cache import PagedCache
from decodery.kernels.reference import torch_kernels
from decodery.kernels.relative_bias import RelativeBias
from decodery.models.decoders.llama import Llama
from decodery.models.layers.attention import DenseAttend, PagedAttend, plan_layers
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_llama_folder, tiny_llama_gguf, tiny_model

# Settings of config.json in which one Llama can differ from another.
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped queries": {},
    "one key head": {"num_key_value_heads": 1},
    "as many key heads as heads": {"num_key_value_heads": 4},
    "an own head": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "heads wider than the model": {"head_dim": 16},
    "another theta": {"rope_theta": 500000.0},
}
# Scalings beyond an original context of 32 tokens.
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn with its own bounds": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
        "truncate": False,
    },
    "yarn with its own magnitude": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 1.7,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
for _name, _scaling in SCALINGS.items():
    _context = 32 if _name == "dynamic" else 256
    VARIANTS[_name] = {
        "rope_parameters": {**_scaling, "rope_theta": 1000.0},
        "max_position_embeddings": _context,
    }


def some_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(seed))


def load(path: Path) -> Llama:
    with open_checkpoint(path) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    assert isinstance(model, Llama)
    return model


def oracle(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder).eval()


class Pages:
    """Runs one sequence in scattered pages, step by step."""

    def __init__(self, model: Llama) -> None:
        self.model = model
        kernels, dtype = model.kernels, model.kernels.cache_dtype(model.dtype)
        self.cache: PagedCache = model.kv_shape.allocate(40, dtype, whole_pages=kernels.takes_page_strides())
        self.table = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()

    @torch.inference_mode()
    def hidden(self, tokens: Tensor, start: int) -> Tensor:
        """Returns the hidden states of tokens [length] at positions from `start` on."""
        model, length = self.model, len(tokens)
        plans = plan_layers(
            model.kernels,
            [layer.kind for layer in model.attention_layers],
            [self.table],
            [start],
            [length],
            dtype=model.dtype,
            device="cpu",
        )
        positions = torch.arange(start, start + length)
        return model.hidden(tokens, positions, PagedAttend(model.kernels, self.cache, plans)).clone()

    def in_chunks(self, tokens: Tensor, sizes: list[int]) -> Tensor:
        parts = tokens.split(sizes)
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        return torch.cat([self.hidden(part, start) for part, start in zip(parts, starts, strict=True)])


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path, **VARIANTS[name])
    model, expected = load(folder), oracle(folder)
    for length in (20, 200):
        tokens = some_tokens(2, length)
        with torch.no_grad():
            theirs = expected(tokens).logits
            exact = expected.double()(tokens).logits
        expected.float()
        assert theirs.std() > 0.5
        # 1e-5 holds where both sum in one order. On some processors torch's order depends on the shapes.
        near = max(1e-5, 2 * (theirs - exact).abs().max().item())
        torch.testing.assert_close(model(tokens), theirs, atol=near, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["grouped queries", "one key head", "an own head", "biases", "another theta"]
)
def test_a_gguf_file_is_the_same_model(name: str, tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", **VARIANTS[name])
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", folder)
    found, expected = load(file), load(folder)
    weights = expected.state_dict()
    assert found.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[key]) for key, weight in found.state_dict().items())
    tokens = some_tokens(2, 40)
    torch.testing.assert_close(found(tokens), expected(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("linear", {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        (
            "yarn",
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 32,
            },
        ),
    ],
)
def test_a_gguf_file_declares_its_scaling(name: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", **VARIANTS[name])
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", folder, metadata)
    tokens = some_tokens(2, 100)
    torch.testing.assert_close(load(file)(tokens), load(folder)(tokens), atol=1e-5, rtol=1e-5)


def test_a_gguf_file_stores_llama3_scaling_as_divisors(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub", **VARIANTS["llama3"])
    expected = load(folder)
    plain = 1000.0 ** -(torch.arange(0, 12, 2) / 12)
    divisors = plain / expected.rotary.frequencies
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", folder, tensors={"rope_freqs.weight": divisors})
    tokens = some_tokens(2, 100)
    torch.testing.assert_close(load(file)(tokens), expected(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["grouped queries", "one key head", "biases", "yarn", "llama3"])
def test_paged_is_dense(name: str) -> None:
    model = tiny_model(torch.float64, **VARIANTS[name])
    tokens = some_tokens(150)
    dense = model(tokens[None])[0]
    whole = Pages(model).hidden(tokens, 0)
    torch.testing.assert_close(model.logits(whole), dense, atol=1e-5, rtol=1e-5)


CHUNKS = ([1] * 300, [7, 120, 1, 1, 1, 170], [299, 1], [64, 64, 100, 5, 67])


@built
def test_chunks_are_the_whole_bit_for_bit() -> None:
    model, tokens = default_model(), some_tokens(300)
    whole = Pages(model).hidden(tokens, 0)
    for sizes in CHUNKS:
        assert torch.equal(Pages(model).in_chunks(tokens, sizes), whole), sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["grouped queries", "one key head", "biases", "yarn", "llama3"])
def test_on_torch_the_error_of_chunks_is_at_most_twice_that_of_the_whole(
    name: str, dtype: torch.dtype
) -> None:
    model, tokens = tiny_model(dtype, **VARIANTS[name]), some_tokens(150)
    exact = tiny_model(dtype, **VARIANTS[name]).double()(tokens[None])[0]

    def error(logits: Tensor) -> float:
        return (logits.double() - exact).abs().max().item()

    whole = error(model(tokens[None])[0])
    assert 0 < whole < (1e-4 if dtype == torch.float32 else 1)
    for sizes in ([150], [1] * 150, [7, 50, 1, 1, 1, 90], [64, 50, 5, 31]):
        assert error(model.logits(Pages(model).in_chunks(tokens, sizes))) <= 2 * whole, sizes


def test_torch_chunks_are_the_whole_but_for_rounding() -> None:
    model = tiny_model(torch.float64)
    tokens = some_tokens(300)
    whole = Pages(model).hidden(tokens, 0)
    for sizes in CHUNKS:
        torch.testing.assert_close(Pages(model).in_chunks(tokens, sizes), whole, atol=1e-10, rtol=0)


def test_padding_is_seen_by_no_one() -> None:
    model = tiny_model()
    tokens = some_tokens(2, 12)
    keep = torch.ones(2, 12, dtype=torch.bool)
    keep[0, 8:], keep[1, :3] = False, False
    logits = model(tokens, keep)
    torch.testing.assert_close(logits[0, :8], model(tokens[:1, :8])[0], atol=1e-5, rtol=1e-5)
    other = model(tokens.masked_fill(~keep, 5), keep)
    assert torch.equal(other[keep], logits[keep])
    assert logits.isfinite().all()


def test_a_bias_is_added_to_the_scores() -> None:
    q, k, v = torch.randn(3, 2, 7, 4, 8, generator=torch.Generator().manual_seed(0))
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    distances = (torch.arange(7)[:, None] - torch.arange(7)).clamp(0, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(8) + table[:, 2 - distances]
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)
    layer = AttentionLayer(0, 4, 4, 8, 8, 1 / math.sqrt(8), bias=RelativeBias(table, 2))
    found = DenseAttend(torch_kernels)(layer, q, k, v)
    torch.testing.assert_close(found, expected.flatten(2), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path, tie_word_embeddings=False, attention_bias=True)
    model, expected = load(folder).requires_grad_(), oracle(folder)
    tokens = some_tokens(2, 30)
    for logits in (model(tokens), expected(tokens).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    theirs = dict(expected.named_parameters())
    layer = "model.layers.1"
    pairs = {
        "embedding.weight": ["model.embed_tokens.weight"],
        "head.weight": ["lm_head.weight"],
        "norm.weight": ["model.norm.weight"],
        "layers.1.attn_norm.weight": [f"{layer}.input_layernorm.weight"],
        "layers.1.attn.qkv.weight": [f"{layer}.self_attn.{part}_proj.weight" for part in "qkv"],
        "layers.1.attn.qkv.bias": [f"{layer}.self_attn.{part}_proj.bias" for part in "qkv"],
        "layers.1.attn.out.weight": [f"{layer}.self_attn.o_proj.weight"],
        "layers.1.mlp_norm.weight": [f"{layer}.post_attention_layernorm.weight"],
        "layers.1.mlp.gate_up.weight": [f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight"],
        "layers.1.mlp.down.weight": [f"{layer}.mlp.down_proj.weight"],
    }
    for ours, names in pairs.items():
        wanted = torch.cat([theirs[name].grad for name in names])
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(model.get_parameter(ours).grad, wanted, atol=1e-4, rtol=1e-4)


def test_left_padding_changes_no_learned_position(tmp_path: Path) -> None:
    from tests.models.decoders.families import write_folder
    from tests.models.decoders.layer_norm_families import LAYER_NORM_FAMILIES

    with open_checkpoint(write_folder(LAYER_NORM_FAMILIES["gpt2"], tmp_path)) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    tokens = some_tokens(1, 12)
    padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), tokens), 1)
    keep = torch.ones(1, 17, dtype=torch.bool)
    keep[0, :5] = False
    torch.testing.assert_close(model(padded, keep)[:, 5:], model(tokens), atol=1e-4, rtol=1e-4)
