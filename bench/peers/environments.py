"""The peers' virtual environments, made when they are missing or their requirements changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.peers.catalogue import Entry
from bench.remote import ROOT

REQUIREMENTS = ROOT / "bench" / "requirements"
# llama.cpp comes as sources, which are compiled for this processor.
BUILD = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}


class UnavailableError(Exception):
    """Why a contender is not measured, in one line."""


def python_of(entry: Entry) -> Path:
    """The interpreter that runs the contender; its packages are installed first where they are not.

    Raises `UnavailableError` when that fails.
    """
    if not entry.environment:
        return Path(sys.executable)
    folder = ROOT / entry.environment
    python = folder / "bin" / "python"
    wanted = REQUIREMENTS / f"{entry.requirements}.txt"
    mark = folder / f"{entry.requirements}.installed"
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8"):
        return python
    log = ROOT / "bench" / "results" / f"install-{entry.requirements}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {entry.distribution} into {entry.environment} (what pip says is in {log}) ...")
    with log.open("wb") as output:
        if not python.exists():
            _run([sys.executable, "-m", "venv", str(folder)], output.fileno(), entry)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "-r", str(wanted)], output.fileno(), entry)
        # Comes with a converter, is not needed for texts, and must fit torch's build exactly to be imported.
        _run([*pip, "uninstall", "-y", "torchvision"], output.fileno(), entry)
    mark.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    return python


def _run(command: list[str], output: int, entry: Entry) -> None:
    done = subprocess.run(command, stdout=output, stderr=output, env={**os.environ, **BUILD}, check=False)
    if done.returncode:
        log = f"bench/results/install-{entry.requirements}.log"
        raise UnavailableError(f"{entry.distribution} cannot be installed: {log} says why")


def version_in(entry: Entry) -> str:
    """The version of the contender's package in its environment."""
    program = f"from importlib.metadata import version; print(version({entry.distribution!r}))"
    done = subprocess.run([str(python_of(entry)), "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()
