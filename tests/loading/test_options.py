from __future__ import annotations

import math
from pathlib import Path

import pytest

from decodery.errors import ParameterError
from decodery.loading import options
from decodery.loading.options import available_memory, memory_size, total_memory


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1000, 1000),
        (1e6, 10**6),
        ("1e6", 10**6),
        ("2.5E+6", 2_500_000),
        ("512MB", 512 * 10**6),
        ("0.5 gib", 2**29),
        ("64KiB", 2**16),
    ],
)
def test_a_memory_size_is_a_number_or_has_a_unit(
    written: int | float | str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "total_memory", lambda: 10.0**9)
    assert memory_size(written) == size  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["", "MB", "-1", "1TB", "1e-3", "nan", "1 2", True])
def test_anything_else_is_no_memory_size(written: str) -> None:
    with pytest.raises(ParameterError, match="a memory size is bytes or such as"):
        memory_size(written)


@pytest.mark.parametrize("written", ["3GB", 10**30, "9" * 400, "1e999"])
def test_more_memory_than_the_machine_has_is_refused_with_what_it_has(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "total_memory", lambda: 2.0 * 10**9)
    monkeypatch.setattr(options, "available_memory", lambda: 15 * 10**8)
    with pytest.raises(ParameterError, match=r"2\.0GB, of which 1\.5GB are free"):
        memory_size(written)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulates a machine with 8 of 16 GB free; the test writes the files of its container."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    monkeypatch.setattr(options, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(options, "CGROUP", tmp_path)
    return tmp_path


def confine(machine: Path, limit: int | str, used: int, files: int) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text(f"{used}\n")
    (machine / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_what_a_container_has_left_is_its_limit_without_what_it_uses(machine: Path) -> None:
    assert available_memory() == 8_192_000_000
    confine(machine, 3 * 10**9, used=2 * 10**9, files=500)
    assert available_memory() == 10**9 + 500
    confine(machine, 10**9, used=2 * 10**9, files=0)
    assert available_memory() == 0
    confine(machine, 10**12, used=0, files=0)
    assert available_memory() == 8_192_000_000
    confine(machine, "max", used=2 * 10**9, files=0)
    assert available_memory() == 8_192_000_000


def test_a_machine_that_tells_nothing_has_four_gigabytes(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert available_memory() == 4 * 10**9


def test_a_container_has_no_more_than_its_limit(machine: Path) -> None:
    whole = total_memory()
    assert 0 < whole < math.inf
    confine(machine, 1000, used=0, files=0)
    assert total_memory() == 1000
