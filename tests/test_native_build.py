"""Checks how native/make.py builds the kernels, with a compiler that only writes down what it is asked."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the compilers here are those of Linux")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    found = importlib.util.spec_from_file_location("native_make", ROOT / "native" / "make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def calls_of(
    make: ModuleType, folder: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """Returns the arguments of all calls with which the kernels are compiled for a machine."""
    compiler = folder / "compiler"
    compiler.write_text(f"""#!/bin/sh
if [ "$1" = -dumpmachine ]; then echo {machine}-linux-gnu; exit; fi
echo "$*" >> {folder}/calls
while [ "$1" != -o ]; do shift; done
: > "$2"
""")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    make.build(folder / "library.so")
    return [line.split() for line in (folder / "calls").read_text().splitlines()]


UNITS = {
    "x86_64": ["library", "team", "drafting", "portable", "avx2", "avx512"],
    "aarch64": ["library", "team", "drafting", "portable", "neon", "neon_dot"],
    "riscv64": ["library", "team", "drafting", "portable"],
}


@pytest.mark.parametrize("machine", UNITS)
def test_the_compiler_says_which_instruction_sets_are_built(
    make: ModuleType, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *compiled, linked = calls_of(make, tmp_path, machine, monkeypatch)
    sources = [Path(word).stem for call in compiled for word in call if word.endswith(".cpp")]
    assert sorted(sources) == sorted(UNITS[machine])
    # What several units define comes from the first one, which must run everywhere.
    assert [Path(word).stem for word in linked if word.endswith(".o")] == UNITS[machine]
    assert make.wheel_tag(str(tmp_path / "compiler")) == f"py3-none-linux_{machine}"


@pytest.mark.parametrize("machine", UNITS)
def test_nothing_is_compiled_for_the_processor_that_builds(
    make: ModuleType, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in calls_of(make, tmp_path, machine, monkeypatch):
        general = any(Path(word).stem in ("library", "team", "portable") for word in call)
        chosen = [word for word in call if word.startswith("-m")]
        assert "native" not in " ".join(chosen)
        assert not (general and chosen)


def test_every_kernel_has_a_digest_that_is_compared_between_architectures() -> None:
    kernels = (ROOT / "native" / "abi.hpp").read_text(encoding="utf-8")
    listed = re.findall(r"\bk[A-Z]\w+", kernels.partition("enum KernelId")[2].partition("}")[0])
    called = re.findall(r"\bcall\((k\w+)", (ROOT / "tests/native/digests.cpp").read_text(encoding="utf-8"))
    assert set(called) == {*listed} - {"kKernelCount"}


@pytest.mark.slow
@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("make", "aarch64-linux-gnu-g++", "qemu-aarch64")),
    reason="needs g++-aarch64-linux-gnu and qemu-user",
)
def test_the_kernels_for_arm_have_the_bits_of_those_of_this_machine() -> None:
    done = subprocess.run(["make", "-s", "test-arm"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the kernels for ARM give the bits of those of this machine\n")
