"""Builds the wheel that is published, and runs it where there is no compiler."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from decodery.version import __version__
from tests.cli.conftest import write_model

ROOT = Path(__file__).parent.parent
# The glibc that torch's wheels need, for every version that Decodery runs with.
NEWEST_GLIBC = (2, 28)
ARM_COMPILER = "aarch64-linux-gnu-g++"
MAKE = shutil.which("make")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the wheels are for Linux")
pytestmark = [pytest.mark.slow, needs_linux, pytest.mark.skipif(MAKE is None, reason="make is not installed")]


def make_wheel(folder: Path, *settings: str) -> None:
    command = [str(MAKE), "-s", "wheel", f"DIST={folder}", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder with what `make wheel` makes."""
    folder = tmp_path_factory.mktemp("dist")
    make_wheel(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"decodery-{__version__}.dist-info/{name}").decode()


def test_the_folder_holds_one_archive_and_one_wheel(dist: Path) -> None:
    names = {path.name for path in dist.iterdir()}
    assert f"decodery-{__version__}.tar.gz" in names
    assert len(names) == 2


def test_the_wheel_serves_every_python_and_every_glibc_that_torch_runs_with(wheel: Path) -> None:
    machine = re.escape(os.uname().machine)
    found = re.fullmatch(rf"decodery-(.+)-py3-none-manylinux_(\d+)_(\d+)_{machine}\.whl", wheel.name)
    assert found is not None, wheel.name
    assert found[1] == __version__
    assert (int(found[2]), int(found[3])) <= NEWEST_GLIBC
    assert "Tag: py3-none-manylinux" in metadata(wheel, "WHEEL")
    assert "Root-Is-Purelib: false" in metadata(wheel, "WHEEL")


@pytest.mark.skipif(shutil.which(ARM_COMPILER) is None, reason=f"needs {ARM_COMPILER}")
def test_a_compiler_for_arm_makes_a_wheel_for_arm(tmp_path: Path) -> None:
    make_wheel(tmp_path, f"CXX={ARM_COMPILER}")
    (wheel,) = tmp_path.glob("*.whl")
    found = re.fullmatch(r"decodery-.+-py3-none-manylinux_(\d+)_(\d+)_aarch64\.whl", wheel.name)
    assert found is not None, wheel.name
    assert (int(found[1]), int(found[2])) <= NEWEST_GLIBC


def test_the_wheel_tells_its_version_its_licence_and_what_it_needs(wheel: Path) -> None:
    told = HeaderParser().parsestr(metadata(wheel, "METADATA"))
    assert (told["Name"], told["Version"]) == ("decodery", __version__)
    assert (told["License-Expression"], told["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert any(need.startswith("torch>=") for need in told.get_all("Requires-Dist", []))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"decodery", f"decodery-{__version__}.dist-info"}
    source = ROOT / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "decodery").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    pages = {f"decodery/learn_pages/{path.name}" for path in (ROOT / "docs" / "learn").iterdir()}
    assert {name for name in names if re.match("decodery/.*[^/]$", name)} == expected | pages | {
        "decodery/kernels/native/_native.so"
    }


def test_a_fresh_environment_without_a_compiler_runs_the_wheel_natively(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    # The dependencies are those of this environment, without its .pth files, which lead to this checkout.
    packages = sysconfig.get_path("platlib", vars={"base": str(environment), "platbase": str(environment)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (tmp_path / "model").mkdir()
    model = write_model(tmp_path / "model")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "DECODERY_", "CXX")) and name != "PATH"
    }
    path = str(environment / "bin")
    assert not any(shutil.which(name, path=path) for name in ("c++", "g++", "clang++"))

    def ran(*arguments: str) -> str:
        command = [str(environment / "bin" / "decodery"), *arguments]
        alone = {**inherited, "PATH": path}
        done = subprocess.run(command, env=alone, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ran("--version") == f"decodery {__version__}\n"
    page = (ROOT / "docs" / "learn" / "sampling.md").read_text(encoding="utf-8")
    assert ran("learn", "sampling") == page[page.index("# Sampling") :]
    described = json.loads(ran("inspect", model, "--json"))
    assert described["backend"] == "native"
    told = ran("generate", "abc", "--model", model, "--backend", "native", "--max-tokens", "4", "--json")
    assert len(json.loads(told)["completions"][0]["token_ids"]) == 4
