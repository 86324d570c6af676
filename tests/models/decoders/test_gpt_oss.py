"""Checks gpt-oss in files: experts in four bits in both formats, defaults of settings, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import CheckpointError, ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import Format, PackedExperts
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.experts.gpt_oss import GPT_OSS
from decodery.models.layers.rope import YarnRope
from decodery.models.load import load_for_inference, load_model
from decodery.weights.formats.mxfp4 import in_ggml_order
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.packed_cache import weights_of
from decodery.weights.parameters import export_parameters
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import SIZES, Tiny, write_folder
from tests.models.decoders.test_every_family import InPages

# Widths of whole groups of 32.
SETTINGS = {
    **SIZES,
    "hidden_size": 64,
    "intermediate_size": 32,
    "head_dim": 16,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 9,
}
TOKENS = torch.arange(30) * 7 % 97
STACKS = {"gate_up_proj": (64, 64), "down_proj": (64, 32)}
SIZES_OF_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def random_stack(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the blocks and scales of three random matrices."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (3, rows, columns // 32, 16), generator=generator)
    scales = torch.randint(122, 125, (3, rows, columns // 32), generator=generator)
    return blocks.to(torch.uint8), scales.to(torch.uint8)


def values(blocks: Tensor, scales: Tensor) -> Tensor:
    """Returns the matrices [experts, rows, columns] by the definition of the format."""
    table = torch.tensor([*SIZES_OF_FP4, *(-size for size in SIZES_OF_FP4)])
    numbers = torch.stack((table[(blocks & 15).long()], table[(blocks >> 4).long()]), -1).flatten(-2)
    return (numbers * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Writes a folder whose experts are in four bits, and one with the same numbers as floats."""
    floats = write_folder(Tiny("GptOssForCausalLM", SETTINGS), tmp_path_factory.mktemp("floats"))
    bits = tmp_path_factory.mktemp("bits")
    dense = load_file(floats / "model.safetensors")
    coded = dict(dense)
    for layer in range(3):
        for number, (name, shape) in enumerate(STACKS.items()):
            stored = f"model.layers.{layer}.mlp.experts.{name}"
            blocks, scales = random_stack(*shape, seed=10 * layer + number)
            dense[stored] = values(blocks, scales).transpose(1, 2).contiguous()
            del coded[stored]
            coded |= {f"{stored}_blocks": blocks, f"{stored}_scales": scales}
    save_file(dense, floats / "model.safetensors")
    save_file(coded, bits / "model.safetensors")
    config = json.loads((floats / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (bits / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return floats, bits


def plain(path: Path) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def packed(path: Path) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())


def test_a_folder_in_four_bits_has_the_logits_of_transformers(folders: tuple[Path, Path]) -> None:
    import transformers

    floats, bits = folders
    expected = transformers.GptOssForCausalLM.from_pretrained(floats, experts_implementation="eager")
    with torch.no_grad():
        theirs = expected.eval()(TOKENS[None]).logits
    found = plain(bits)(TOKENS[None])
    assert torch.equal(found, plain(floats)(TOKENS[None]))
    torch.testing.assert_close(found, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)


@built
def test_natively_four_bits_stay_four_bits_with_the_same_values(folders: tuple[Path, Path]) -> None:
    model = packed(folders[1])
    for name, weight in weights_of(model).items():
        if name.endswith("weight") and "experts" in name:
            assert isinstance(weight, PackedExperts)
            assert weight.format is Format.FP4
    exact = plain(folders[0])(TOKENS[None])[0]
    logits = InPages(model).logits(TOKENS)
    assert (logits - exact).square().mean(1).median().sqrt() < 0.05 * exact.std()


@built
def test_a_gguf_file_in_four_bits_is_packed_to_the_same_bytes(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = plain(folders[0])
    metadata, tensors = GPT_OSS.config.to_gguf(model.config, "gpt-oss")
    tensors |= dict(export_parameters(model, GPT_OSS.gguf_names(model.config).rules, 3))
    coded = load_file(folders[1] / "model.safetensors")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gpt-oss")
    for key, value in metadata.items():
        if key != "general.architecture":
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, tensor in tensors.items():
        if "_exps.weight" not in name:
            writer.add_tensor(name, tensor.numpy())
            continue
        layer, part = name.split(".")[1], name.split(".")[2].split("_")[1]
        stored = f"model.layers.{layer}.mlp.experts.{'down' if part == 'down' else 'gate_up'}_proj"
        rows = {"gate": slice(0, None, 2), "up": slice(1, None, 2), "down": slice(None)}[part]
        blocks, scales = coded[f"{stored}_blocks"][:, rows], coded[f"{stored}_scales"][:, rows]
        raw = in_ggml_order(blocks.flatten(0, 1), scales.flatten(0, 1)).view(*scales.shape[:2], -1)
        writer.add_tensor(name, raw.numpy(), raw_dtype=gguf.GGMLQuantizationType.MXFP4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, expected = weights_of(packed(tmp_path / "model.gguf")), weights_of(packed(folders[1]))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        if isinstance(weight, PackedExperts):
            assert torch.equal(found[name].data, weight.data)
    assert torch.equal(plain(tmp_path / "model.gguf")(TOKENS[None]), plain(folders[1])(TOKENS[None]))


def test_blocks_without_scales_are_an_error_that_names_them(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((folders[1] / "config.json").read_bytes())
    tensors = load_file(folders[1] / "model.safetensors")
    lost = "model.layers.1.mlp.experts.down_proj_scales"
    save_file({name: t for name, t in tensors.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=lost):
        open_checkpoint(tmp_path)


def test_other_quantised_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = json.loads((folders[0] / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((folders[0] / "model.safetensors").read_bytes())
    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(ModelError, match="quantization_config"):
        load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def test_missing_keys_have_the_defaults_of_the_family() -> None:
    without = {key: value for key, value in SETTINGS.items() if key not in ("rope_theta", "head_dim")}
    del without["sliding_window"]
    found = GPT_OSS.config.from_hub(without)
    assert found.rope == YarnRope(150000.0, 32.0, 4096, truncate=False)
    assert (found.head_dim, found.windows, found.attention_bias) == (64, (128, None, 128), True)
    assert GPT_OSS.config.from_hub({**SETTINGS, "sliding_window": None}).windows == ()


def test_rotary_positions_are_read_under_both_keys() -> None:
    yarn = {
        "rope_type": "yarn",
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    }
    expected = YarnRope(150000.0, 8.0, 64, truncate=False)
    without = {key: value for key, value in SETTINGS.items() if key != "rope_theta"}
    old = {**without, "rope_scaling": yarn, "rope_theta": 150000}
    new = {**without, "rope_parameters": {**yarn, "rope_theta": 150000}}
    assert [GPT_OSS.config.from_hub(settings).rope for settings in (old, new)] == [expected] * 2


@pytest.mark.parametrize("key", ["swiglu_limit", "swiglu_alpha"])
def test_another_clamped_activation_is_refused(key: str) -> None:
    with pytest.raises(ModelError, match=key):
        GPT_OSS.config.from_hub({**SETTINGS, key: 5.0})


def test_what_a_gguf_file_cannot_express_is_refused() -> None:
    every = ["sliding_attention"] * 3
    config = GPT_OSS.config.from_hub({**SETTINGS, "layer_types": every})
    with pytest.raises(ModelError, match="even layers"):
        GPT_OSS.config.to_gguf(config, "gpt-oss")
    yarn = {"rope_type": "yarn", "factor": 8.0, "rope_theta": 150000.0}
    config = GPT_OSS.config.from_hub({**SETTINGS, "rope_parameters": yarn})
    with pytest.raises(ModelError, match="truncated"):
        GPT_OSS.config.to_gguf(config, "gpt-oss")
