"""Tests the folders of NomicBERT that its authors publish, whose settings and tensors have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.encoding.folders import write_json
from tests.models.encoders.families import FAMILIES, write_folder

# The config.json of nomic-embed-text-v1.5, but for the sizes.
PUBLISHED: dict[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 60,
    "n_head": 5,
    "n_inner": 75,
    "n_layer": 2,
    "n_positions": 8192,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": 2,
    "type_vocab_size": 3,
    "vocab_size": 97,
}
NAMES = {
    "embeddings.LayerNorm": "emb_ln",
    "self_attn.o_proj": "attn.out_proj",
    "mlp.up_proj": "mlp.fc11",
    "mlp.gate_proj": "mlp.fc12",
    "mlp.down_proj": "mlp.fc2",
    "post_attention_layernorm": "norm1",
    "post_mlp_layernorm": "norm2",
}


def opened(folder: Path) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def published(folder: Path, path: Path, **settings: Any) -> Path:
    """Writes a folder as the authors do, with the weights of a folder of transformers."""
    stored = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("nomic_bert."): value for name, value in stored.items()}
    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        ours = name.replace("layers.", "encoder.layers.") if name.startswith("layers.") else name
        for theirs, authors in NAMES.items():
            ours = ours.replace(theirs, authors)
        found[ours] = value
    for layer in range(2):
        parts = [found.pop(f"encoder.layers.{layer}.self_attn.{name}_proj.weight", None) for name in "qkv"]
        if parts[0] is not None:
            found[f"encoder.layers.{layer}.attn.Wqkv.weight"] = torch.cat([p for p in parts if p is not None])
    path.mkdir(exist_ok=True)
    save_file(found, path / "model.safetensors")
    write_json(path / "config.json", {**PUBLISHED, **settings})
    return path


def test_a_folder_of_the_authors_is_the_same_model(tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["nomicbert"], tmp_path / "theirs")
    model = opened(published(folder, tmp_path / "authors"))
    tokens = torch.tensor([[5, 9, 2, 60]])
    segments = torch.tensor([[0, 0, 1, 2]])
    assert torch.equal(model(tokens, segments=segments), opened(folder)(tokens, segments=segments))
    # The authors scale the rotary positions beyond the length that the model was trained for.
    assert model.context_length == 2048


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prenorm", True),
        ("causal", True),
        ("qkv_proj_bias", True),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_fraction", 0.5),
        ("moe_every_n_layers", 2),
        ("activation_function", "odd"),
    ],
)
def test_another_nomicbert_is_an_error_that_names_the_setting(tmp_path: Path, key: str, value: Any) -> None:
    folder = write_folder(FAMILIES["nomicbert"], tmp_path / "theirs")
    with pytest.raises(ModelError, match=key):
        opened(published(folder, tmp_path / "authors", **{key: value}))
