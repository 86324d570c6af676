from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.weights.sources import locate
from decodery.weights.sources.locate import DEFAULT_MODEL, MINILM, resolve, resolve_headers


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Returns a list that gets the fetches; nothing is fetched."""
    seen: list[tuple[Any, ...]] = []

    def packaged(model: object, *, progress: object) -> Path:
        seen.append((model, progress))
        return Path("packaged")

    def snapshot(*arguments: object) -> Path:
        seen.append(arguments)
        return Path("snapshot")

    def gguf(*arguments: object) -> Path:
        seen.append(arguments)
        return Path("one.gguf")

    monkeypatch.setattr(locate, "fetch_packaged", packaged)
    monkeypatch.setattr(locate, "fetch_snapshot", snapshot)
    monkeypatch.setattr(locate, "fetch_gguf", gguf)
    return seen


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tell(stage: str, done: int, total: int) -> None: ...


def test_nothing_and_its_name_are_the_default_model(calls: list[tuple[Any, ...]]) -> None:
    assert resolve(progress=tell) == Path("packaged")
    assert resolve("default", progress=tell) == Path("packaged")
    assert resolve("SmolLM2-135M-Instruct", progress=tell) == Path("packaged")
    assert calls == [(DEFAULT_MODEL, tell)] * 3


def test_minilm_and_its_name_are_the_packaged_encoder(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    assert resolve("minilm", progress=tell) == Path("packaged")
    assert resolve("all-MiniLM-L6-v2", progress=tell) == Path("packaged")
    assert resolve_headers("minilm", tmp_path, progress=tell) == Path("packaged")
    assert calls == [(MINILM, tell)] * 3
    (tmp_path / "minilm").mkdir()
    assert resolve("minilm") == Path("minilm"), "a folder of that name is the folder"


def test_a_folder_called_default_is_a_path(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    (tmp_path / "default").mkdir()
    assert resolve("./default") == Path("default")
    assert resolve(Path("default")) == Path("default")
    assert resolve(tmp_path / "default") == tmp_path / "default"
    assert calls == []
    assert resolve("default") == Path("packaged")


def test_what_is_there_is_itself(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert resolve("org/name") == Path("org/name")
    assert resolve(tmp_path) == tmp_path
    assert resolve("./x.gguf") == Path("x.gguf")
    assert calls == []


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


def test_a_hub_id_is_fetched_with_revision_and_token(calls: list[tuple[Any, ...]]) -> None:
    assert resolve("org/na.me-1", revision="v1", token="t", progress=tell) == Path("snapshot")
    assert resolve("org/name:Q4_K_M", revision="v1", token="t", progress=tell) == Path("one.gguf")
    assert resolve("org/name:sub/file.gguf") == Path("one.gguf")
    assert calls == [
        ("org/na.me-1", "v1", "t", tell),
        ("org/name", "Q4_K_M", "v1", "t", tell),
        ("org/name", "sub/file.gguf", None, None, None),
    ]


PATHS = [
    "./foo",
    "../foo",
    "foo.gguf",
    "org/foo.gguf",
    "/no/where",
    "a/b/c",
    "~/nope",
    "~nobody-here/x",
    "a\\b",
]


@pytest.mark.parametrize("path", [*PATHS, "org/model.safetensors", Path("org/name"), Path("org/name:x.gguf")])
def test_a_mistyped_path_is_never_sent_to_the_hub(path: str | Path, calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ModelError, match="there is no file or folder"):
        resolve(path)
    assert calls == []


@pytest.mark.parametrize("name", ["", "smol", "org/", "org/name:", "-x/y", "org/na me", "x" * 5000, "a\0b"])
def test_an_unknown_model_says_what_it_may_be(name: str, calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ModelError, match=r"unknown model .*a folder, a \.gguf file, a hub id"):
        resolve(name)
    assert calls == []


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"neither a folder nor a \.gguf file"):
        resolve("model.bin")


def test_finding_a_model_needs_no_heavy_import() -> None:
    code = (
        "import sys, decodery.weights.sources.locate as s; s.cache_folder();"
        "print([m for m in ('torch', 'numpy', 'gguf', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
