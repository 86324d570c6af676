from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from decodery.errors import ModelError
from decodery.weights.sources.model_cache import CachedModel, cache_folder, cached_models


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def test_our_variable_comes_first_then_the_platforms_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("DECODERY_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "decodery"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "decodery"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "decodery"


@pytest.mark.parametrize("chosen", ["", "~/models"])
def test_without_a_home_folder_the_error_names_our_variable(
    chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", chosen)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    # The standard library's error for a user without HOME and without an entry in the password file.
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ModelError, match="set DECODERY_CACHE"):
        cache_folder()


def test_no_cache_at_all_is_an_empty_list(hub: Path) -> None:
    assert cached_models() == []


def test_models_of_both_caches_are_listed_by_name(hub: Path, tmp_path: Path) -> None:
    own = put(tmp_path / "own" / "models" / "Small" / "small.gguf", 7)
    put(own.with_name("small.gguf.sha256"), 70)
    snapshots = hub / "models--org--a--b" / "snapshots"
    put(snapshots / "abc" / "config.json", 3)
    put(snapshots / "abc" / "model-1.safetensors", 5)
    put(snapshots / "abc" / "model-2.safetensors", 6)
    many = hub / "models--org--many" / "snapshots" / "def"
    put(many / "m-Q4.gguf", 1)
    put(many / "m-Q8.gguf", 2)
    assert cached_models() == [
        CachedModel("Small", own, 7, "gguf"),
        CachedModel("org/a--b", snapshots / "abc", 11, "safetensors"),
        CachedModel("org/many:m-Q4.gguf", many / "m-Q4.gguf", 1, "gguf"),
        CachedModel("org/many:m-Q8.gguf", many / "m-Q8.gguf", 2, "gguf"),
    ]


def test_a_snapshots_files_may_be_links_to_blobs(hub: Path) -> None:
    blob = put(hub / "models--org--x" / "blobs" / "123", 9)
    link = hub / "models--org--x" / "snapshots" / "abc" / "x.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    assert cached_models() == [CachedModel("org/x", link, 9, "gguf")]


def test_rubbish_is_passed_over(hub: Path, tmp_path: Path) -> None:
    put(tmp_path / "own" / "models" / ".Small.lock", 1)
    put(tmp_path / "own" / "models" / "half" / ".pull-1" / "x.gguf", 1)
    put(hub / "version.txt", 1)
    put(hub / "models--org--file", 1)
    put(hub / "datasets--org--d" / "snapshots" / "a" / "x.gguf", 1)
    put(hub / "models--single" / "snapshots" / "a" / "x.gguf", 1)
    put(hub / "models--org--nothing" / "refs" / "main", 1)
    put(hub / "models--org--pickle" / "snapshots" / "a" / "pytorch_model.bin", 1)
    put(hub / "models--org--adapter" / "snapshots" / "a" / "x.safetensors", 1)
    broken = hub / "models--org--broken" / "snapshots" / "a"
    broken.mkdir(parents=True)
    (broken / "x.gguf").symlink_to(hub / "nowhere")
    assert cached_models() == []


def test_the_parts_of_a_split_model_are_listed_as_one(hub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own" / "models" / "Large"
    first = put(folder / "m-00001-of-00002.gguf", 7)
    put(folder / "m-00002-of-00002.gguf", 5)
    assert cached_models() == [CachedModel("Large", first, 12, "gguf")]
