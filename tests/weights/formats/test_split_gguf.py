"""Checks that a split GGUF model opens as the one that it was, and that parts that do not fit are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from decodery.errors import CheckpointError, ModelError
from decodery.kernels.reference import torch_kernels
from decodery.loading.describe import facts
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.formats.split_names import names_of_models, names_of_parts
from decodery.weights.layouts.packed_cache import PackedCache
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf
from tests.weights.files import write_gguf

U16 = gguf.GGUFValueType.UINT16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_llama_folder(tmp_path / "hub")


@pytest.fixture
def whole(tmp_path: Path, folder: Path) -> Path:
    return tiny_llama_gguf(tmp_path / "whole.gguf", folder)


@pytest.fixture
def parts(tmp_path: Path, folder: Path) -> list[Path]:
    (tmp_path / "parts").mkdir()
    tiny_llama_gguf(tmp_path / "parts" / "m.gguf", folder, per_part=11)
    found = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in found] == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    return found


def without_parts(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("split.")}


def test_whichever_part_is_named_the_whole_model_is_opened(whole: Path, parts: list[Path]) -> None:
    with open_checkpoint(whole) as expected:
        for path in (*parts, parts[0].parent):
            with open_checkpoint(path) as found:
                assert found.path == parts[0]
                assert found.format == "gguf"
                assert without_parts(found.config) == expected.config
                assert found.tensors == expected.tensors
                for name in expected.tensors:
                    assert torch.equal(found.read(name, torch.float32), expected.read(name, torch.float32))
                    found.forget(name)
                kept = found.read("output_norm.weight", torch.float32)
        assert torch.equal(kept, expected.read("output_norm.weight", torch.float32))
    with pytest.raises(CheckpointError, match="closed"):
        found.read("output_norm.weight", torch.float32)


def test_parts_of_tensors_and_blocks_are_read_from_the_file_that_has_them(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    with open_checkpoint(write_gguf(tmp_path / "source")) as source:
        blocks = {name: source.blocks(name).numpy() for name in ("q8_0", "q4_k")}
        for name, stored in blocks.items():
            kind = gguf.GGMLQuantizationType[name.upper()]
            writer.add_tensor(name, stored.reshape(2, 2, -1).copy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "m-00002-of-00002.gguf") as found:
        for name, stored in blocks.items():
            assert torch.equal(found.blocks(name, 1), torch.from_numpy(stored[2:]))
            each = found.read_part(name, 1, torch.float32)
            assert torch.equal(each, found.read(name, torch.float32)[1])


def test_its_model_and_what_inspect_says_are_those_of_the_whole(whole: Path, parts: list[Path]) -> None:
    options: dict[str, Any] = {"dtype": "float32", "backend": "torch", "kv_dtype": "auto"}
    tokens = torch.arange(20).view(1, -1)
    logits, said = [], []
    for path in (whole, parts[1]):
        with open_checkpoint(path) as checkpoint:
            model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
            found = facts(checkpoint, quantization=None, context_length=None, **options)
        logits.append(model(tokens))
        said.append({key: value for key, value in found.items() if key not in ("path", "token")})
    assert torch.equal(*logits)
    assert said[0] == said[1]


def test_missing_parts_are_named(parts: list[Path]) -> None:
    parts[1].unlink()
    for path in (parts[0], parts[2], parts[0].parent):
        with pytest.raises(CheckpointError, match=r"m-00002-of-00003\.gguf is missing from its folder"):
            open_checkpoint(path)
    parts[0].unlink()
    with pytest.raises(CheckpointError, match=r"m-00001-of-00003\.gguf, m-00002-of-00003\.gguf are missing"):
        open_checkpoint(parts[2])
    with pytest.raises(CheckpointError, match=r"m-00001-of-00003\.gguf cannot be read"):
        open_checkpoint(parts[2].parent)


def test_a_part_under_another_name_says_which_name_it_needs(parts: list[Path]) -> None:
    for name in ("other.gguf", "m-00001-of-00002.gguf", "m-00003-of-00003.gguf"):
        shutil.copy(parts[0], parts[0].parent / name)
        with pytest.raises(CheckpointError, match=r"split.no is 0 and split.count 3\).* rename the parts"):
            open_checkpoint(parts[0].parent / name)


@pytest.mark.parametrize(("number", "count"), [(0, 3), (1, 2), (1, None)])
def test_a_part_that_contradicts_its_name_is_named(
    parts: list[Path], number: int, count: int | None, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(parts[1], "llama")
    writer.add_key_value("split.no", number, U16)
    if count is not None:
        writer.add_key_value("split.count", count, U16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        CheckpointError, match=rf"m-00002-of-00003\.gguf: split\.no is {number} and .* 1 and 3"
    ):
        open_checkpoint(parts[0])


def write_parts(folder: Path, names: list[list[str]], total: int) -> Path:
    """Writes parts with these tensors, the first of which says that there are `total`."""
    for number, held in enumerate(names):
        writer = gguf.GGUFWriter(folder / f"x-{number + 1:05}-of-{len(names):05}.gguf", "llama")
        writer.add_key_value("split.no", number, U16)
        writer.add_key_value("split.count", len(names), U16)
        writer.add_key_value("split.tensors.count", total, gguf.GGUFValueType.INT32)
        for name in held:
            writer.add_tensor(name, torch.ones(8).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder


def test_parts_with_a_tensor_twice_or_too_few_are_refused(tmp_path: Path) -> None:
    for name in ("fits", "twice", "few"):
        (tmp_path / name).mkdir()
    assert open_checkpoint(write_parts(tmp_path / "fits", [[], ["a"], ["b"]], 2)).tensors.keys() == {"a", "b"}
    with pytest.raises(CheckpointError, match=r"x-00002-.*: x-00001-of-00002\.gguf too has a tensor a"):
        open_checkpoint(write_parts(tmp_path / "twice", [["a"], ["a"]], 2))
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count is 3, but the parts hold 2 tensors"):
        open_checkpoint(write_parts(tmp_path / "few", [["a"], ["b"]], 3))


def test_a_folder_with_another_model_beside_the_parts_names_each_once(parts: list[Path], whole: Path) -> None:
    shutil.copy(whole, parts[0].parent / "whole.gguf")
    with pytest.raises(ModelError, match=r"holds 2 \.gguf files; .*: m-00001-of-00003\.gguf, whole\.gguf"):
        open_checkpoint(parts[0].parent)


def test_packed_weights_are_those_of_all_parts(parts: list[Path]) -> None:
    cache = PackedCache(parts[0])
    before = cache.identity()
    assert [name for name, *_ in before["files"]] == [path.name for path in parts]
    content = bytearray(parts[2].read_bytes())
    content[-1] ^= 1
    parts[2].write_bytes(content)
    assert json.dumps(cache.identity()) != json.dumps(before)
    parts[2].unlink()
    with pytest.raises(FileNotFoundError):
        cache.identity()
    assert cache.read() is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("m-00002-of-00002.gguf", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]),
        ("Q4/m-00001-of-00001.gguf", ["Q4/m-00001-of-00001.gguf"]),
        ("m.gguf", ["m.gguf"]),
        ("m-00003-of-00002.gguf", ["m-00003-of-00002.gguf"]),
        ("m-00000-of-00002.gguf", ["m-00000-of-00002.gguf"]),
        ("m-1-of-2.gguf", ["m-1-of-2.gguf"]),
    ],
)
def test_the_names_of_parts_are_known_from_one(name: str, parts: list[str]) -> None:
    assert names_of_parts(name) == parts


def test_files_are_listed_by_model() -> None:
    names = ["a-00002-of-00002.gguf", "b.gguf", "a-00001-of-00002.gguf"]
    assert names_of_models(names) == ["a-00001-of-00002.gguf", "b.gguf"]
