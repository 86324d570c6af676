from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors

from decodery.errors import ModelError
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.sources import hub
from decodery.weights.sources.hub import (
    UNWANTED,
    WANTED,
    fetch_config,
    fetch_gguf,
    fetch_gguf_header,
    fetch_snapshot,
    pick_gguf,
)
from tests.weights.files import write_folder, write_gguf
from tests.weights.formats.test_split_gguf import write_parts

FILES = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md", "BF16/m-BF16.gguf"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of an empty hub cache, and makes the client work offline."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """Returns the snapshot of org/name in the hub's own layout."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


def test_what_is_cached_is_found_offline(snapshot: Path) -> None:
    write_folder(snapshot, {"model.safetensors": {"w": torch.ones(2)}})
    reported: list[tuple[str, int, int]] = []
    folder = fetch_snapshot("org/name", None, None, lambda *news: reported.append(news))
    assert folder == snapshot
    assert set(open_checkpoint(folder).tensors) == {"w"}
    assert reported == [("fetching org/name from the hub", 0, 0)]


def test_a_cached_gguf_is_found_offline_by_name_and_by_part(snapshot: Path) -> None:
    write_gguf(snapshot / "m-Q4_K_M.gguf")
    for choice in ("m-Q4_K_M.gguf", "q4_k_m"):
        assert fetch_gguf("org/name", choice, None, None, None) == snapshot / "m-Q4_K_M.gguf"
    with pytest.raises(ModelError, match=r"has no GGUF file Q8_0; it has m-Q4_K_M\.gguf"):
        fetch_gguf("org/name", "Q8_0", None, None, None)


def test_what_is_not_cached_is_one_line_offline(cache: Path) -> None:
    with pytest.raises(ModelError, match="org/name is not wholly in the hub's cache") as raised:
        fetch_snapshot("org/name", None, None, None)
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelError, match="org/name is not wholly in the hub's cache"):
        fetch_gguf("org/name", "Q4_K_M", None, None, None)


def test_a_snapshot_without_safetensors_points_to_gguf_files(snapshot: Path) -> None:
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no safetensors files; .* as in org/name:Q4_K_M"):
        fetch_snapshot("org/name", None, None, None)


def test_pickles_and_second_copies_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(write_folder(tmp_path / "m", {"model.safetensors": {"w": torch.ones(1)}}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetch_snapshot("org/name", "v1", "secret", None)
    assert (asked["repository"], asked["revision"], asked["token"]) == ("org/name", "v1", "secret")
    assert (asked["allow_patterns"], asked["ignore_patterns"]) == (WANTED, UNWANTED)

    def wanted(name: str) -> bool:
        return any(fnmatch(name, p) for p in WANTED) and not any(fnmatch(name, p) for p in UNWANTED)

    yes = [
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "tokenizer.model",
        "qwen.tiktoken",
        "merges.txt",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "0_Transformer/tokenizer.json",
    ]
    no = [
        "pytorch_model.bin",
        "x.pt",
        "onnx/config.json",
        "2_Dense/pytorch_model.bin",
        "openvino/openvino_config.json",
        "original/a.safetensors",
        "consolidated.safetensors",
    ]
    assert all(
        wanted(name) for name in [*yes, "chat_template.jinja", "additional_chat_templates/tool_use.jinja"]
    )
    assert not any(wanted(name) for name in [*no, "model.gguf", "code.py"])


def test_one_gguf_file_is_fetched_by_its_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, name: str, *, revision: str, token: str) -> str:
        return f"/{repository}/{revision}/{token}/{name}"

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: FILES)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_gguf("org/name", "bf16", "v1", "t", None) == Path("/org/name/v1/t/BF16/m-BF16.gguf")


@pytest.mark.parametrize(
    ("choice", "name"),
    [("a-Q4_K_M.gguf", "a-Q4_K_M.gguf"), ("Q4_K_M", "a-Q4_K_M.gguf"), ("q8_0", "a.q8_0.gguf")],
)
def test_a_choice_is_a_name_or_a_whole_part_of_one(choice: str, name: str) -> None:
    assert pick_gguf("o/n", choice, ["a-Q4_K_M.gguf", "a-Q4_K_S.gguf", "a.q8_0.gguf"]) == [name]


PARTS = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"]


@pytest.mark.parametrize("choice", ["Q8_0", "q8_0", *PARTS])
def test_of_a_split_model_all_parts_are_picked(choice: str) -> None:
    assert pick_gguf("o/n", choice, ["m-Q4_K_M.gguf", *reversed(PARTS)]) == PARTS


def test_a_split_model_that_lacks_a_part_in_the_repository_names_it() -> None:
    for choice in ("Q8_0", PARTS[1]):
        with pytest.raises(ModelError, match=r"o/n lacks parts of a split model: .*m-Q8_0-00001-of-00002"):
            pick_gguf("o/n", choice, PARTS[1:])


def test_all_parts_of_a_split_model_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def download(repository: str, name: str, *, revision: str, token: str) -> str:
        fetched.append(name)
        return f"/{repository}/{name}"

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: [*FILES, *PARTS])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_gguf("org/name", PARTS[1], None, None, None) == Path("/org/name") / PARTS[0]
    assert fetched == PARTS


def test_a_split_model_is_found_in_the_cache_by_its_parts(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / "Q8_0").mkdir()
    for part in PARTS:
        write_gguf(snapshot / part)
    assert fetch_gguf("org/name", "Q8_0", None, None, None) == snapshot / PARTS[0]
    assert fetch_gguf_header("org/name", "Q8_0", None, None, tmp_path) == snapshot / PARTS[0]


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("Q4_K", "has no GGUF file Q4_K; it has a-Q4_K_M"),
        ("b.gguf", r"has no GGUF file b\.gguf"),
        ("", "has no GGUF file"),
        ("a", r"several GGUF files fit a: a-Q4_K_M\.gguf, a-IQ4\.gguf"),
    ],
)
def test_a_choice_that_fits_none_or_several_lists_them(choice: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        pick_gguf("o/n", choice, ["a-Q4_K_M.gguf", "a-IQ4.gguf"])


def test_a_repository_without_gguf_files_says_so() -> None:
    with pytest.raises(ModelError, match="it has none at all"):
        pick_gguf("o/n", "Q4_K_M", [])


def made(kind: type[Exception], message: str = "first line\nsecond line") -> Exception:
    """Returns an error of the hub's client, whatever its constructor takes."""
    error = kind.__new__(kind)
    error.args = (message,)
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (made(errors.GatedRepoError), "org/name is gated: accept its terms"),
        (made(errors.RepositoryNotFoundError), "the hub has no model org/name, or it is private"),
        (made(errors.RevisionNotFoundError), "org/name has no revision v1"),
        (made(errors.OfflineModeIsEnabled), "the hub cannot be reached"),
        (ConnectionError("no route\nat all"), "org/name cannot be fetched from the hub: no route$"),
        (TimeoutError(), "cannot be fetched from the hub: TimeoutError$"),
        (ValueError("odd"), "cannot be fetched from the hub: odd$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_failure_of_the_hub_is_one_line(
    error: Exception, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", fail)
    with pytest.raises(ModelError, match=reason) as raised:
        fetch_snapshot("org/name", "v1", None, None)
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelError, match=reason):
        fetch_gguf("org/name", "Q4_K_M", "v1", None, None)


def test_a_config_is_found_offline_without_weights(snapshot: Path) -> None:
    (snapshot / "config.json").write_text("{}")
    assert fetch_config("org/name", None, None) == snapshot
    with pytest.raises(ModelError, match="org/other is not wholly in the hub's cache"):
        fetch_config("org/other", None, None)


class Remote:
    """Stands for the hub's file system, and counts the bytes that are read."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files, self.read_bytes = files, 0

    def open(self, name: str, mode: str) -> Any:
        path = self.files[name.removeprefix("org/name@main/")]
        remote, source = self, path.open(mode)

        class File:
            size = path.stat().st_size
            seek = source.seek

            def read(self, length: int) -> bytes:
                remote.read_bytes += length
                return bytes(source.read(length))

            def __enter__(self) -> File:
                return self

            def __exit__(self, *error: object) -> None:
                source.close()

        return File()


def test_of_a_remote_gguf_file_only_the_header_is_fetched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_gguf(tmp_path / "whole.gguf")
    with whole.open("ab") as file:
        file.truncate(1 << 20)
    remote = Remote({"m-Q4_K_M.gguf": whole})
    monkeypatch.setattr(hub, "FIRST_HEADER_BYTES", 100)
    monkeypatch.setattr(hub, "_list_ggufs", lambda *names: ["m-Q4_K_M.gguf"])
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda token: remote)
    folder = tmp_path / "headers"
    folder.mkdir()
    found = fetch_gguf_header("org/name", "q4_k_m", None, None, folder)
    with open_checkpoint(found) as header, open_checkpoint(whole) as expected:
        assert (header.config, header.tensors) == (expected.config, expected.tensors)
    assert found.stat().st_size == 1 << 20
    assert remote.read_bytes < 1 << 16


def test_of_a_remote_split_model_the_headers_of_all_parts_are_fetched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("remote", "headers"):
        (tmp_path / name).mkdir()
    stored = write_parts(tmp_path / "remote", [["a"], ["b"]], 2)
    names = [f"x-0000{number}-of-00002.gguf" for number in (1, 2)]
    monkeypatch.setattr(hub, "_list_ggufs", lambda *arguments: names)
    remote = Remote({name: stored / name for name in names})
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda token: remote)
    found = fetch_gguf_header("org/name", names[1], None, None, tmp_path / "headers")
    assert found == tmp_path / "headers" / names[0]
    with open_checkpoint(found) as header:
        assert header.tensors.keys() == {"a", "b"}


def test_a_snapshot_whose_model_lies_in_a_folder_of_its_own_is_found(snapshot: Path) -> None:
    write_folder(snapshot / "0_Transformer", {"model.safetensors": {"w": torch.ones(2)}})
    (snapshot / "modules.json").write_text(
        '[{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]'
    )
    assert fetch_snapshot("org/name", None, None, None) == snapshot
    assert open_checkpoint(snapshot).path == snapshot / "0_Transformer"
