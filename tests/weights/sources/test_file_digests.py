"""Tests that a kept digest is that of the present content."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from decodery.weights.sources import file_digests
from decodery.weights.sources.file_digests import KEPT_FROM, file_digest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns the files whose content is read, which grows."""
    read: list[Path] = []
    compute = file_digests._computed

    def counted(path: Path) -> str:
        read.append(path)
        return compute(path)

    monkeypatch.setattr(file_digests, "_computed", counted)
    monkeypatch.setattr(file_digests, "SETTLED_NS", 0)
    return read


def written(path: Path, first: bytes, size: int = KEPT_FROM) -> str:
    """Writes a file that begins with some bytes; returns its digest."""
    data = first + bytes(size - len(first))
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_a_large_file_is_read_once_and_a_small_one_each_time(
    tmp_path: Path, cache: Path, computed: list[Path]
) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    digests = written(large, b"a"), written(small, b"a", KEPT_FROM - 1)
    for _ in range(3):
        assert (file_digest(large), file_digest(small)) == digests
    assert (computed.count(large), computed.count(small)) == (1, 3)
    assert len(list(cache.iterdir())) == 1


def test_a_content_that_changed_is_read_again_though_size_and_time_are_the_same(
    tmp_path: Path, cache: Path, computed: list[Path]
) -> None:
    file = tmp_path / "file"
    first = written(file, b"a")
    os.utime(file, ns=(10**18, 10**18))
    assert file_digest(file) == first
    time.sleep(0.02)
    second = written(file, b"b")
    os.utime(file, ns=(10**18, 10**18))
    assert file_digest(file) == second != first
    assert len(computed) == 2


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "file"
    digest = written(file, b"a")
    assert file_digest(file) == digest
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"state": [], "sha256": "ab"}', "\udcff"])
def test_a_damaged_entry_does_not_count(
    tmp_path: Path, cache: Path, computed: list[Path], content: str
) -> None:
    file = tmp_path / "file"
    digest = written(file, b"a")
    assert file_digest(file) == digest
    (entry,) = cache.iterdir()
    entry.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert file_digest(file) == digest
    assert len(computed) == 2


def test_without_a_cache_that_can_be_written_the_digest_is_computed(
    tmp_path: Path, computed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "file"))
    digest = written(tmp_path / "large", b"a")
    assert file_digest(tmp_path / "large") == digest
    assert file_digest(tmp_path / "large") == digest
    assert len(computed) == 2
