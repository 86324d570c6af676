"""Checks matrices that are packed while a checkpoint is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import CheckpointError
from decodery.kernels.ggml_blocks import PACKED_TYPES
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import PackedWeight, Stacked
from decodery.kernels.quantise import quantise
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama
from decodery.models.describe import describe, packed_size
from decodery.models.load import load_for_inference
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.native_layout import Packing
from tests.kernels.native.fixtures import built
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf
from tests.weights.files import random_blocks, write_folder

pytestmark = built


def rows_of(weight: PackedWeight | Stacked) -> Tensor:
    """Returns a packed matrix as floats, read by the embedding kernel; gate and up alternate if gated."""
    parts = weight.parts if isinstance(weight, Stacked) else (weight,)
    return torch.cat([NativeKernels().embedding(torch.arange(part.rows), part) for part in parts])


def held(model: Llama) -> int:
    """Bytes of all its weights."""
    packed = [
        m.weight for m in model.modules() if isinstance(getattr(m, "weight", None), (PackedWeight, Stacked))
    ]
    return sum(p.nbytes for p in model.parameters()) + sum(weight.nbytes for weight in packed)


def loaded(path: Path, quantization: str | None = None) -> Llama:
    with open_checkpoint(path) as checkpoint:
        model = load_for_inference(
            checkpoint, dtype=torch.float32, kernels=NativeKernels(), quantization=quantization
        )
    assert isinstance(model, Llama)
    return model


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder whose matrices are complete blocks of 256 inputs."""
    return tiny_llama_folder(
        tmp_path_factory.mktemp("wide"),
        hidden_size=256,
        intermediate_size=256,
        head_dim=64,
        num_hidden_layers=1,
        tie_word_embeddings=False,
    )


KIND_OF = {"attn_v": "Q6_K", "ffn_up": "Q5_0", "ffn_down": "Q6_K", "output": "Q6_K", "attn_q": "F16"}


@pytest.fixture(scope="module")
def mixed(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a GGUF file whose merged matrices have several types, as in mixtures such as Q4_K_M."""
    plain = tiny_llama_gguf(tmp_path_factory.mktemp("mixed") / "plain.gguf", wide)
    path = plain.with_name("mixed.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for field in gguf.GGUFReader(plain).fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    with open_checkpoint(plain) as checkpoint:
        for seed, (name, info) in enumerate(checkpoint.tensors.items()):
            kind = KIND_OF.get(name.split(".")[-2], "Q4_K")
            if len(info.shape) == 1:
                writer.add_tensor(name, checkpoint.read(name, torch.float32).numpy())
            elif kind == "F16":
                writer.add_tensor(name, checkpoint.read(name, torch.float16).numpy())
            else:
                code = gguf.GGMLQuantizationType[kind]
                blocks = random_blocks(code, *info.shape, seed=seed)
                each = blocks.reshape(-1, gguf.GGML_QUANT_SIZES[code][1])
                (each[:, -2:] if kind == "Q6_K" else each[:, :4])[:] = 0x14  # Scales of an ordinary size.
                writer.add_tensor(name, blocks, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_matrices_merged_of_several_types_are_what_the_gguf_package_decodes(mixed: Path) -> None:
    with open_checkpoint(mixed) as checkpoint:
        plain = load_for_inference(checkpoint, dtype=torch.float32, kernels=Reading())
    [packed], [expected] = loaded(mixed).layers, plain.layers  # type: ignore[attr-defined]
    assert isinstance(packed.attn.qkv.weight, Stacked)
    assert isinstance(packed.mlp.gate_up.weight, Stacked)
    assert packed.mlp.down.weight.format.value.bits == 8
    for found, exact in (
        (packed.attn.qkv, expected.attn.qkv),
        (packed.attn.out, expected.attn.out),
        (packed.mlp.gate_up, expected.mlp.gate_up),
        (packed.mlp.down, expected.mlp.down),
    ):
        assert torch.equal(rows_of(found.weight), exact.weight)


class Reading:
    """Keeps weights as they are stored, with the reference kernels otherwise, so that tests can read them."""

    def __getattr__(self, name: str) -> Any:
        return (lambda weight, **_: weight) if name.startswith("pack") else getattr(torch_kernels, name)


def test_a_weight_of_several_formats_multiplies_as_its_parts(mixed: Path) -> None:
    [layer] = loaded(mixed).layers
    kernels, weight = NativeKernels(), layer.attn.qkv.weight
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.randn(5, 256, generator=generator), torch.randn(weight.rows, generator=generator)
    residual = torch.randn(5, weight.rows, generator=generator)
    parts = torch.cat([kernels.linear(x, part) for part in weight.parts], -1)
    assert torch.equal(kernels.linear(x, weight), parts)
    assert torch.equal(kernels.linear(x, weight, bias, residual), parts + bias + residual)
    mlp = layer.mlp.gate_up.weight
    expected = kernels.gated(torch.cat([kernels.linear(x, part) for part in mlp.parts], -1))
    assert torch.equal(kernels.gated_linear(x, mlp), expected)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_without_quantization_plain_weights_are_kept_to_the_bit(stored: torch.dtype, tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub")
    tensors = {name: tensor.to(stored) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    model = loaded(folder)
    found = model.embedding.weight
    assert torch.equal(rows_of(found), tensors["model.embed_tokens.weight"].float())
    bytes_each = 2 if stored == torch.bfloat16 else 4
    assert found.nbytes == 112 * 48 * bytes_each  # 97 rows, in blocks of 16
    with open_checkpoint(folder) as checkpoint:
        # The size includes up to 15 rows of padding for each source of a merged matrix.
        assert held(model) <= packed_size(checkpoint, describe(checkpoint), None) < 1.1 * held(model)


@pytest.mark.parametrize("form", ["int4", "int8", "bf16"])
def test_quantization_packs_each_matrix_of_any_checkpoint(form: str, wide: Path, mixed: Path) -> None:
    for path in (wide, mixed):
        model = loaded(path, form)
        [layer] = model.layers
        with open_checkpoint(path) as checkpoint:
            name = next(n for n in checkpoint.tensors if n.endswith(("ffn_down.weight", "down_proj.weight")))
            dense = checkpoint.read(name, torch.float32)
        expected = NativeKernels().pack([quantise(dense, form)])
        assert torch.equal(rows_of(layer.mlp.down.weight), rows_of(expected))
        delicate = "int8" if form == "int4" else form
        kept = NativeKernels().pack([quantise(dense, delicate)]).format  # type: ignore[union-attr]
        assert model.head is not None
        assert model.embedding.weight.format is model.head.weight.format is kept
        assert rows_of(layer.attn.qkv.weight).shape == (512, 256)
        assert layer.attn_norm.weight.dtype == torch.float32


@pytest.mark.parametrize("form", [None, "int4", "int8", "bf16"])
def test_the_size_that_headers_promise_is_that_of_the_weights(
    form: str | None, wide: Path, mixed: Path
) -> None:
    for path in (wide, mixed):
        model = loaded(path, form)
        with open_checkpoint(path) as checkpoint:
            assert packed_size(checkpoint, describe(checkpoint), form) == held(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("form", ["int4", "int8"])
def test_values_without_a_scale_are_an_error_that_names_the_tensor(
    form: str, value: float, tmp_path: Path
) -> None:
    weights = torch.ones(4, 64)
    weights[2, 40] = value
    with (
        open_checkpoint(write_folder(tmp_path, {"model.safetensors": {"w": weights}})) as checkpoint,
        pytest.raises(CheckpointError, match=f"w cannot be packed as {form}: it holds values"),
    ):
        Packing(form).codes(checkpoint, "w")


def read_twice(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    first = checkpoint.read(name, dtype)
    before = first.clone()
    checkpoint.forget(name)
    assert torch.equal(first, before)
    return before, checkpoint.read(name, dtype)


def test_a_forgotten_tensor_can_be_read_again(mixed: Path, tmp_path: Path) -> None:
    tensors = {name: torch.randn(300, 50) for name in ("a", "b", "c")}
    with open_checkpoint(write_folder(tmp_path, {"model.safetensors": tensors})) as checkpoint:
        for name, tensor in tensors.items():
            assert all(torch.equal(found, tensor) for found in read_twice(checkpoint, name, torch.float32))
    with open_checkpoint(mixed) as checkpoint:
        for name, info in checkpoint.tensors.items():
            if info.dtype in PACKED_TYPES:
                blocks = checkpoint.blocks(name)
                before = blocks.clone()
                checkpoint.forget(name)
                assert torch.equal(blocks, before)
            first, again = read_twice(checkpoint, name, torch.float32)
            assert torch.equal(first, again)
