"""Checks which Python the Makefile takes, and that all files agree about the oldest one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")
OLD, NEW, BARE = "(3, 10, 14)", "(3, 13, 1)", "bare"


def write_fake(path: Path, kind: str) -> None:
    """Writes an interpreter of a version, or a `BARE` one without `ensurepip`; it logs calls without -c."""
    change = "sys.modules['ensurepip'] = None" if kind == BARE else f"sys.version_info = {kind}"
    path.write_text(
        f"""#!/bin/sh
case "$1" in
    -c) exec "{sys.executable}" -c "import sys; {change}; exec(sys.argv[1])" "$2" ;;
    *) echo "{path.name} $*" > "{path.parent}/log" ;;
esac
"""
    )
    path.chmod(0o755)


def made_by(folder: Path, fakes: dict[str, str], *arguments: str) -> tuple[str, str]:
    """Returns the command that makes the environment, "" if none, and the errors of make."""
    for name, kind in fakes.items():
        write_fake(folder / name, kind)
    target = "env/bin/python"
    done = subprocess.run(
        [str(MAKE), "-s", "-f", str(ROOT / "Makefile"), "VENV=env", target, *arguments],
        cwd=folder,
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    log = folder / "log"
    assert (done.returncode == 0) == log.exists()
    return log.read_text().strip() if log.exists() else "", done.stderr


@pytest.mark.parametrize(
    ("fakes", "expected"),
    [
        ({"python3.11": NEW, "python3.12": NEW, "python3": NEW}, "python3.11"),
        ({"python3.12": NEW}, "python3.12"),
        ({"python3.13": NEW, "python3": OLD}, "python3.13"),
        ({"python3.14": NEW}, "python3.14"),
        ({"python3": NEW, "python": NEW}, "python3"),
        ({"python3": OLD, "python": NEW}, "python"),
        ({"python3.11": BARE, "python3.12": NEW}, "python3.12"),
    ],
)
def test_the_first_python_that_is_new_enough_and_has_pip_makes_the_environment(
    tmp_path: Path, fakes: dict[str, str], expected: str
) -> None:
    assert made_by(tmp_path, fakes) == (f"{expected} -m venv env", "")


@pytest.mark.parametrize("fakes", [{}, {"python3": OLD, "python": OLD}, {"python3": BARE}])
def test_without_one_a_single_line_says_what_to_do(tmp_path: Path, fakes: dict[str, str]) -> None:
    made, errors = made_by(tmp_path, fakes)
    assert made == ""
    (line,) = errors.strip().splitlines()
    assert "needs Python 3.11 or newer" in line
    assert "PYTHON=/path/to/python" in line


def test_a_python_that_is_named_is_taken(tmp_path: Path) -> None:
    fakes = {"python3.11": NEW, "mine": NEW}
    assert made_by(tmp_path, fakes, "PYTHON=mine") == ("mine -m venv env", "")


def test_all_that_is_installed_has_the_versions_of_the_constraints() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r".*pip install.*", text) == [
        "INSTALL := -m pip install --disable-pip-version-check -q -c constraints.txt"
    ]


def test_clean_removes_each_environment() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    environments = re.findall(r"^([A-Z]+) := \.venv", text, re.MULTILINE)
    (removed,) = re.findall(r"^clean:\n\trm -rf (.*)$", text, re.MULTILINE)
    assert [name for name in environments if f"$({name})" not in removed.split()] == []


def test_all_files_name_the_same_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = project["project"]["requires-python"].removeprefix(">=")
    versions = [
        found[1]
        for name in project["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name))
    ]
    assert versions[0] == oldest
    assert project["tool"]["mypy"]["python_version"] == oldest
    assert "target-version" not in project["tool"]["ruff"], "ruff takes it from requires-python"
    assert f"You need Python {oldest} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"(3, {oldest.removeprefix('3.')})" in (ROOT / "Makefile").read_text(encoding="utf-8")
