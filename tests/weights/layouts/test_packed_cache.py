"""Checks that kept weights are the packed ones, and that files that do not match are packed again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery import LLM, ParameterError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import PackedWeight
from decodery.models.contract import CausalModel
from decodery.models.load import load_for_inference
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts import packed_cache
from decodery.weights.layouts.packed_cache import PackedCache, Weights, weights_of
from decodery.weights.sources.model_cache import cached_models, packed_folder
from tests.kernels.native.fixtures import built
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf

pytestmark = built


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama_folder(tmp_path / "tiny")


def loaded(source: Path, cache: PackedCache | None) -> CausalModel:
    with open_checkpoint(source) as checkpoint:
        return load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels(), cache=cache)


def content(model: CausalModel) -> Weights:
    assert isinstance(model, torch.nn.Module)
    return weights_of(model)


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        other = found[name]
        if isinstance(weight, PackedWeight):
            assert isinstance(other, PackedWeight)
            assert (other.shape, other.format, other.gated) == (weight.shape, weight.format, weight.gated)
            assert torch.equal(other.data, weight.data)
            assert other.data.data_ptr() % 64 == 0
        else:
            assert isinstance(other, Tensor)
            assert torch.equal(other, weight)


def test_the_second_model_has_the_weights_of_the_first_and_reads_none(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = content(loaded(source, None))
    assert any(isinstance(weight, PackedWeight) and weight.gated for weight in plain.values())
    assert_same(content(loaded(source, PackedCache(source))), plain)

    def unread(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(packed_cache.PackedCache, "write", unread)
    monkeypatch.setattr("decodery.models.load.load_parameters", unread)
    assert_same(content(loaded(source, PackedCache(source))), plain)


def test_a_gguf_file_is_kept_too(source: Path, tmp_path: Path) -> None:
    file = tiny_llama_gguf(tmp_path / "tiny.gguf", source)
    loaded(file, PackedCache(file))
    kept = PackedCache(file).read()
    assert kept is not None
    assert_same(kept, content(loaded(file, None)))


def test_what_is_kept_is_used_for_the_same_source_packing_and_versions_only(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PackedCache(source)
    loaded(source, cache)
    weights = source / "model.safetensors"
    before = weights.stat()
    assert cache.read() is not None
    assert PackedCache(source, "int4").read() is None
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert cache.read() is None
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.read() is not None
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.read() is None
    changed[-1] ^= 1
    weights.write_bytes(changed)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.read() is not None
    monkeypatch.setattr(packed_cache, "VERSION", -1)
    assert cache.read() is None


def damages(whole: bytes) -> dict[str, bytes]:
    length = int.from_bytes(whole[8:16], "little")
    header = json.loads(whole[48 : 48 + length])
    rest = whole[-(-(48 + length) // 64) * 64 :]

    def headed(text: bytes) -> bytes:
        start = whole[:8] + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text
        return start.ljust(-(-len(start) // 64) * 64, b"\0") + rest

    def changed(**changes: object) -> bytes:
        name = next(name for name, entry in header["weights"].items() if "format" in entry)
        entry = {**header["weights"][name], **changes}
        return headed(json.dumps({**header, "weights": {**header["weights"], name: entry}}).encode())

    return {
        "empty": b"",
        "cut": whole[:-1],
        "longer": whole + b"\0",
        "another kind of file": b"x" + whole[1:],
        "a header without end": whole[:8] + b"\xff" * 8 + whole[16:],
        "a header that tells of another form": whole.replace(b'"gated": true', b'"gated": 0   '),
        "no JSON": headed(b"\xff" * length),
        "a list": headed(b"[]"),
        "a weight beyond the end": changed(offset=1 << 30),
        "a weight before the beginning": changed(offset=-(1 << 20)),
        "a weight between borders": changed(offset=32),
        "rows beyond the end": changed(rows=1 << 20),
        "fewer rows": changed(rows=1),
        "an unknown format": changed(format="INT3"),
    }


def test_a_damaged_file_is_packed_again(source: Path) -> None:
    expected = content(loaded(source, PackedCache(source)))
    path = PackedCache(source).path
    whole = path.read_bytes()
    for name, damaged in damages(whole).items():
        path.write_bytes(damaged)
        assert_same(content(loaded(source, PackedCache(source))), expected)
        assert path.read_bytes() == whole, name


def test_a_place_that_cannot_be_written_is_a_warning_and_nothing_else(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    with pytest.warns(RuntimeWarning, match="packed weights cannot be kept in"):
        model = loaded(source, PackedCache(source))
    assert_same(content(model), content(loaded(source, None)))


def test_nothing_incomplete_is_left(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed_cache, "_write", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        loaded(source, PackedCache(source))
    assert list(packed_folder().iterdir()) == []

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packed_cache, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loaded(source, PackedCache(source))
    assert list(packed_folder().iterdir()) == []


def test_a_file_is_on_the_disk_before_it_has_its_name(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(f"{os.fstat(file).st_size}"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    loaded(source, PackedCache(source))
    assert done == [f"{PackedCache(source).path.stat().st_size}", "named"]


def test_a_source_that_changes_while_it_is_read_is_packed_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PackedCache.write

    def late(self: PackedCache, *arguments: Any) -> None:
        os.utime(source / "model.safetensors", ns=(1, 1))
        write(self, *arguments)

    monkeypatch.setattr(PackedCache, "write", late)
    loaded(source, PackedCache(source))
    assert PackedCache(source).path.exists()
    assert PackedCache(source).read() is None


def test_an_interrupt_behind_the_last_write_is_no_warning(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(*names: str) -> None:
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loaded(source, PackedCache(source))


def test_a_link_to_nothing_beside_the_weights_disturbs_nobody(source: Path) -> None:
    (source / "consolidated.safetensors").symlink_to("nowhere")
    plain = content(loaded(source, None))
    assert_same(content(loaded(source, PackedCache(source))), plain)
    assert PackedCache(source).read() is not None


def test_what_is_kept_is_listed(source: Path) -> None:
    loaded(source, PackedCache(source))
    (found,) = (model for model in cached_models() if model.format == "packed")
    assert found.path == PackedCache(source).path
    assert found.name.startswith("tiny-")
    assert found.bytes == found.path.stat().st_size


def test_only_the_native_backend_keeps_weights(source: Path) -> None:
    with pytest.raises(ParameterError, match="packed_cache and backend=torch do not go together"):
        LLM(source, backend="torch", packed_cache=True)
