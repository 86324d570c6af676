from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_models_lists_what_is_in_the_cache(decodery: Run, model: str, cache: Path) -> None:
    folder = cache / "models" / "tiny"
    shutil.copytree(model, folder)
    nbytes = (folder / "model.safetensors").stat().st_size
    found = decodery("models", "--json").json
    assert found == [{"name": "tiny", "format": "safetensors", "bytes": nbytes, "path": str(folder)}]
    heading, line = decodery("models").out.splitlines()
    assert heading.split() == ["name", "format", "size", "path"]
    assert line.split() == ["tiny", "safetensors", *f"{nbytes / 1000:.3g} kB".split(), str(folder)]


def test_an_empty_cache_is_reported_on_stderr(decodery: Run, cache: Path) -> None:
    ran = decodery("models")
    assert (ran.status, ran.out) == (0, "")
    assert "decodery pull" in ran.err
    assert decodery("models", "--json").json == []


def test_supported_lists_every_architecture_by_family(decodery: Run) -> None:
    from decodery.models.families import GGUF, HUB

    found = decodery("models", "--supported", "--json").json
    assert {name for entry in found for name in entry["safetensors"]} == set(HUB)
    assert {name for entry in found for name in entry["gguf"]} == set(GGUF)
    assert all(entry["gguf"] == ["llama"] for entry in found if entry["family"] in ("llama", "mixtral"))
    heading, *lines = decodery("models", "--supported").out.splitlines()
    assert heading.split() == ["family", "safetensors", "GGUF"]
    assert len(lines) == len(found)
