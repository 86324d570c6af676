from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.opening import open_checkpoint
from tests.weights.files import (
    ARRAY,
    BOOL,
    STRING,
    TOKENS,
    U32,
    array,
    entry,
    gguf_bytes,
    tensor,
    text,
    write_gguf,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.gguf")


def opened(folder: Path, content: bytes) -> Checkpoint:
    path = folder / "hand.gguf"
    path.write_bytes(content)
    return open_checkpoint(path)


def test_metadata_comes_back_as_plain_python_values(path: Path) -> None:
    config = open_checkpoint(path).config
    assert config["general.architecture"] == "llama"
    assert config["llama.block_count"] == 2
    assert config["llama.rope.freq_base"] == 10000.0
    assert config["tokenizer.ggml.add_bos_token"] is False
    assert config["test.wide"] == 1 << 40
    assert config["tokenizer.ggml.tokens"] == TOKENS
    assert config["tokenizer.ggml.token_type"] == [3, 1, 1, 1]
    assert config["test.scores"] == [0.5, -1.0]
    assert config["test.flags"] == [True, False]
    assert type(config["test.flags"][0]) is bool


def test_metadata_equals_that_of_the_gguf_package(path: Path) -> None:
    fields = gguf.GGUFReader(path).fields
    theirs = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    assert open_checkpoint(path).config == theirs


def test_tensor_infos_are_in_torch_order_with_stored_sizes(path: Path) -> None:
    tensors = open_checkpoint(path).tensors
    assert tensors["half"] == TensorInfo("half", (3, 5), "float16", 30)
    assert tensors["norm"] == TensorInfo("norm", (32,), "float32", 128)
    assert tensors["ids"] == TensorInfo("ids", (6,), "int32", 24)
    assert tensors["q8_0"] == TensorInfo("q8_0", (4, 256), "Q8_0", 4 * 8 * 34)
    assert tensors["q4_k"] == TensorInfo("q4_k", (4, 256), "Q4_K", 4 * 144)


def test_tensors_equal_those_of_the_gguf_package(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for theirs in gguf.GGUFReader(path).tensors:
        if theirs.name == "ids":
            assert checkpoint.read("ids", torch.int64).tolist() == theirs.data.tolist()
            continue
        expected = torch.from_numpy(gguf.dequantize(theirs.data, theirs.tensor_type).copy())
        for dtype in (torch.float32, torch.bfloat16):
            ours = checkpoint.read(theirs.name, dtype)
            assert ours.dtype == dtype
            assert ours.is_contiguous()
            assert torch.equal(ours, expected.to(dtype))


def test_a_tensor_stored_as_asked_is_a_private_view_of_the_file(path: Path) -> None:
    before = path.read_bytes()
    checkpoint = open_checkpoint(path)
    first, second = checkpoint.read("norm", torch.float32), checkpoint.read("norm", torch.float32)
    assert first.data_ptr() == second.data_ptr()
    first.zero_()
    assert path.read_bytes() == before


def test_tensors_outlive_the_checkpoint_and_reading_after_close_is_refused(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        norm = checkpoint.read("norm", torch.float32)
        expected = norm.tolist()
    assert norm.tolist() == expected
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.read("norm", torch.float32)
    checkpoint.close()


def test_integers_are_no_weights_and_weights_no_integers(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for name, dtype in (("ids", torch.float32), ("norm", torch.int32), ("q8_0", torch.int8)):
        with pytest.raises(CheckpointError, match=f"{name} holds"):
            checkpoint.read(name, dtype)


def test_an_unknown_name_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tensor nope"):
        open_checkpoint(path).read("nope", torch.float32)


def test_a_quantised_tensor_with_a_broken_scale_is_refused(tmp_path: Path) -> None:
    broken = np.zeros(34, np.uint8)
    broken[1] = 0x7E  # float16 NaN
    checkpoint = opened(tmp_path, gguf_bytes((), (tensor("w", (32,), 8),), broken.tobytes()))
    with pytest.raises(CheckpointError, match="w is damaged: it holds values that are not finite"):
        checkpoint.read("w", torch.float32)


def test_versions_2_and_3_are_read(tmp_path: Path) -> None:
    for version in (2, 3):
        checkpoint = opened(tmp_path, gguf_bytes((), (tensor("w"),), version=version))
        assert checkpoint.tensors["w"].shape == (8,)


def test_a_token_that_is_not_utf_8_survives(tmp_path: Path) -> None:
    tokens = array(STRING, 2, text(b"\xff\xfe") + text("ok"))
    config = opened(tmp_path, gguf_bytes((entry("tokens", ARRAY, tokens),))).config
    assert config["tokens"][0].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert config["tokens"][1] == "ok"


def test_nested_arrays_are_read_up_to_a_depth(tmp_path: Path) -> None:
    inner = array(U32, 2, bytes([1, 0, 0, 0, 2, 0, 0, 0]))
    nested = array(ARRAY, 2, inner + array(BOOL, 1, b"\1"))
    assert opened(tmp_path, gguf_bytes((entry("a", ARRAY, nested),))).config["a"] == [[1, 2], [True]]


def test_a_wider_alignment_moves_the_data(tmp_path: Path) -> None:
    head = (entry("general.alignment", U32, (128).to_bytes(4, "little")),)
    data = np.arange(8, dtype=np.float32).tobytes()
    checkpoint = opened(tmp_path, gguf_bytes(head, (tensor("w"),), data, alignment=128))
    assert checkpoint.read("w", torch.float32).tolist() == list(range(8))


def test_one_part_of_a_split_file_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a part of a split model"):
        opened(tmp_path, gguf_bytes((entry("split.count", U32, (3).to_bytes(4, "little")),)))
