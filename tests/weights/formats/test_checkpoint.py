from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decodery.errors import CheckpointError, ModelError
from decodery.weights.formats import checkpoint as checkpoint_module
from decodery.weights.formats.opening import open_checkpoint
from tests.weights.files import write_folder, write_gguf


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "only.gguf")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "gguf"
    assert checkpoint.path == tmp_path / "only.gguf"


def test_safetensors_come_before_a_gguf_file_beside_them(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf")
    write_folder(tmp_path, {"model.safetensors": {"w": torch.ones(1)}})
    assert open_checkpoint(tmp_path).format == "safetensors"


def test_a_gguf_file_needs_no_particular_name(tmp_path: Path) -> None:
    assert open_checkpoint(write_gguf(tmp_path / "weights")).format == "gguf"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "holds no weights"),
        (("config.json", "tokenizer.json"), "holds no weights"),
        (("pytorch_model.bin",), "no pickle is ever loaded.* convert it with torch.load"),
        (("model.pt", "config.json"), "no pickle is ever loaded"),
        (("a.gguf", "b.gguf"), "holds 2 .gguf files; name one of them: a.gguf, b.gguf"),
    ],
)
def test_a_folder_without_readable_weights_says_why(
    names: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=reason):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.safetensors", "give the folder that holds this file"),
        ("pytorch_model.bin", "no pickle is ever loaded"),
        ("notes.txt", "not a GGUF file"),
    ],
)
def test_a_file_that_is_no_gguf_says_why(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"some text that is long enough to hold a header")
    with pytest.raises(ModelError, match=reason):
        open_checkpoint(tmp_path / name)


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        open_checkpoint(tmp_path / "nope")


def test_a_folder_that_may_not_be_read_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        open_checkpoint(tmp_path)


def test_json_nested_without_end_is_one_clear_error(tmp_path: Path) -> None:
    write_folder(tmp_path, {"model.safetensors": {"w": torch.ones(1)}})
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged JSON"):
        open_checkpoint(tmp_path)


def test_a_link_that_leads_nowhere_is_one_clear_error(tmp_path: Path) -> None:
    write_folder(tmp_path, {"model.safetensors": {"w": torch.ones(1)}})
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(CheckpointError, match="damaged safetensors file"):
        open_checkpoint(tmp_path)


def test_tensors_are_equal_if_they_hold_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "COMPARED", 12)
    table = torch.arange(35).view(7, 5) / 4
    last = table.clone()
    last[-1, -1] += 1
    tensors = {
        **{"table": table, "same": table.clone(), "narrow": table.bfloat16(), "last": last},
        **{"fewer": table[:6].clone(), "flat": table.flatten().clone(), "nan": torch.full((7, 5), torch.nan)},
    }
    with open_checkpoint(write_folder(tmp_path, {"model.safetensors": tensors})) as checkpoint:
        equal = {name for name in tensors if checkpoint.equal("table", name)}
        assert equal == {"table", "same", "narrow"}
        assert not checkpoint.equal("nan", "table")
        monkeypatch.setattr(type(checkpoint), "read", None)
        assert checkpoint.equal("table", "same")  # It is known.


def test_quantised_tensors_are_equal_if_their_blocks_are(tmp_path: Path) -> None:
    with open_checkpoint(write_gguf(tmp_path / "m.gguf")) as checkpoint:
        assert checkpoint.equal("q8_0", "q8_0")
        assert not checkpoint.equal("q8_0", "q4_k")


def test_a_warning_is_held_once(tmp_path: Path) -> None:
    with open_checkpoint(write_gguf(tmp_path / "m.gguf")) as checkpoint:
        for message in ("one", "two", "one"):
            checkpoint.warn(message)
        assert checkpoint.warnings == ["one", "two"]
