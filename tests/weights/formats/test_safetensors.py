from __future__ import annotations

import contextlib
import json
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from decodery.errors import CheckpointError, DecoderyError
from decodery.weights.formats.checkpoint import TensorInfo
from decodery.weights.formats.opening import open_checkpoint
from tests.weights.files import write_folder, write_index

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 8, generator=generator),
        "b": torch.randn(6, generator=generator).bfloat16(),
        "h": torch.randn(2, 3, generator=generator).half(),
        "d": torch.randn(5, generator=generator).double(),
        "ids": torch.arange(7),
        "scalar": torch.tensor(2.5),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", {"model.safetensors": tensors()}, {"hidden_size": 8})


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_folder(
        tmp_path / "sharded", {ONE: {"a": torch.ones(2)}, TWO: {"b": torch.zeros(3), "c": torch.ones(1)}}
    )


def test_infos_and_settings_are_those_of_the_files(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"top_k": 5}')
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.config == {"hidden_size": 8}
        assert checkpoint.generation_config == {"top_k": 5}
        assert set(checkpoint.tensors) == set(tensors())
        assert checkpoint.tensors["w"] == TensorInfo("w", (4, 8), "float32", 128)
        assert checkpoint.tensors["b"] == TensorInfo("b", (6,), "bfloat16", 12)
        assert checkpoint.tensors["scalar"] == TensorInfo("scalar", (), "float32", 4)


def test_tensors_are_read_in_the_type_asked_for(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for name, expected in tensors().items():
            if name != "ids":
                for dtype in (torch.float32, torch.bfloat16, torch.float16):
                    ours = checkpoint.read(name, dtype)
                    assert ours.is_contiguous()
                    assert torch.equal(ours, expected.to(dtype))
        assert torch.equal(checkpoint.read("ids", torch.int64), torch.arange(7))
        with pytest.raises(CheckpointError, match="ids holds integers"):
            checkpoint.read("ids", torch.float32)


def test_a_tensor_stored_as_asked_is_a_private_view_that_outlives_the_checkpoint(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with open_checkpoint(folder) as checkpoint:
        tensor = checkpoint.read("w", torch.float32)
        assert tensor.data_ptr() == checkpoint.read("w", torch.float32).data_ptr()
    tensor.add_(1)
    assert torch.equal(tensor, tensors()["w"] + 1)
    assert (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("w", torch.float32)


def test_shards_are_one_checkpoint(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        assert {name: tuple(info.shape) for name, info in checkpoint.tensors.items()} == {
            "a": (2,),
            "b": (3,),
            "c": (1,),
        }
        assert checkpoint.read("b", torch.float32).tolist() == [0, 0, 0]


def test_a_single_file_may_have_any_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", {"weights.safetensors": {"a": torch.ones(2)}})
    assert set(open_checkpoint(tmp_path / "m").tensors) == {"a"}


def test_several_files_without_an_index_are_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=f"it holds {ONE}, {TWO}"):
        open_checkpoint(sharded)


def test_all_missing_shards_are_named_in_one_error(sharded: Path) -> None:
    (sharded / ONE).unlink()
    (sharded / TWO).unlink()
    with pytest.raises(CheckpointError, match=f"shards that are not there: {ONE}, {TWO}"):
        open_checkpoint(sharded)


def test_all_tensors_that_a_shard_lacks_are_named_in_one_error(sharded: Path) -> None:
    write_index(sharded, {"a": TWO, "b": ONE, "c": TWO})
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(sharded)
    assert f"a (in {TWO}), b (in {ONE})" in str(raised.value)
    assert "c (in" not in str(raised.value)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "x.bin", ""])
def test_a_shard_outside_the_folder_is_refused(shard: str, sharded: Path) -> None:
    write_index(sharded, {"a": ONE, "b": shard})
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors file of this folder"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[1]"),
        ("config.json", b"[" * 100_000),
        ("generation_config.json", b"null"),
        ("model.safetensors.index.json", b"{}"),
        ("model.safetensors.index.json", b'{"weight_map": []}'),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 3}}'),
    ],
)
def test_a_damaged_json_file_is_named(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file):
        open_checkpoint(folder)


def test_weights_without_settings_are_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_checkpoint(folder)


def test_a_type_without_a_torch_name_is_refused_when_read(tmp_path: Path) -> None:
    tensor = torch.ones(4).to(torch.float8_e4m3fn)
    write_folder(tmp_path / "m", {"model.safetensors": {"w": tensor}})
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.tensors["w"] == TensorInfo("w", (4,), "F8_E4M3", 4)
        with pytest.raises(CheckpointError, match="w is stored as F8_E4M3"):
            checkpoint.read("w", torch.float32)


def header(value: object) -> bytes:
    raw = json.dumps(value).encode()
    return struct.pack("<Q", len(raw)) + raw


def described(dtype: str = "F32", shape: tuple[int, ...] = (2,), ends: tuple[int, int] = (0, 8)) -> bytes:
    return header({"w": {"dtype": dtype, "shape": shape, "data_offsets": ends}}) + bytes(8)


LIES = {
    "nothing": b"",
    "absurd header length": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "not JSON": struct.pack("<Q", 2) + b"{]",
    "not UTF-8": struct.pack("<Q", 4) + b'{"\xff"',
    "not an object": header([1, 2]),
    "unknown type": described(dtype="F33"),
    "shape beyond the data": described(shape=(200,)),
    "product beyond 64 bits": described(shape=(1 << 62, 1 << 62)),
    "product that wraps to 2": described(shape=(1 << 63, 2)),
    "negative dimension": described(shape=(-2,)),
    "data after the end": described(ends=(8, 16)),
    "offsets reversed": described(ends=(8, 0)),
    "absurd offsets": described(ends=(0, (1 << 63) - 1)),
    "data left over": described() + bytes(8),
    "overlap": header(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"},
    )
    + bytes(8),
}


def outcome(folder: Path) -> str | None:
    tracemalloc.reset_peak()
    start = time.perf_counter()
    message = None
    try:
        with open_checkpoint(folder) as checkpoint:
            for name in checkpoint.tensors:
                with contextlib.suppress(DecoderyError):
                    checkpoint.read(name, torch.float32)
    except DecoderyError as error:
        message = str(error)
        assert "\n" not in message
    assert time.perf_counter() - start < 1.0
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    return message


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_and_the_file_named(lie: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged safetensors file"):
        open_checkpoint(folder)


def test_truncations_are_refused_and_flipped_bits_give_an_error_or_a_readable_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({"w": torch.randn(4, 8), "b": torch.zeros(3).bfloat16()}, path, {"format": "pt"})
    content = path.read_bytes()
    tracemalloc.start()
    try:
        for size in range(0, len(content), 5):
            path.write_bytes(content[:size])
            assert outcome(folder) is not None, size
        refused = 0
        for place in range(len(content) - 134):
            for bit in range(place % 2, 8, 2):
                path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
                refused += outcome(folder) is not None
        assert refused > 100
    finally:
        tracemalloc.stop()
