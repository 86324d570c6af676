"""Makes the peers' virtual environments if they are missing or their requirements have changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.peers.catalogue import Entry
from bench.remote import ROOT

REQUIREMENTS = ROOT / "bench" / "requirements"
# llama.cpp is installed from its sources, which are compiled for this processor. Its AMX kernels end the
# process with a segmentation fault on a batch of Q4_1 weights, so they are left out.
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
BUILD = {
    "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
    "CMAKE_ARGS": f"-DCMAKE_C_FLAGS='{NO_AMX}' -DCMAKE_CXX_FLAGS='{NO_AMX}'",
}


class UnavailableError(Exception):
    """Says in one line why a contender is not measured."""


def python_of(entry: Entry) -> Path:
    """Returns the interpreter that runs the contender, and installs its packages first if they are missing.

    Raises `UnavailableError` when the installation fails.
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
        # A converter depends on torchvision, which texts do not need, and which can be imported only with the
        # build of torch that it was made for.
        _run([*pip, "uninstall", "-y", "torchvision"], output.fileno(), entry)
    mark.write_text(wanted.read_text(encoding="utf-8"), encoding="utf-8")
    return python


def _run(command: list[str], output: int, entry: Entry) -> None:
    done = subprocess.run(command, stdout=output, stderr=output, env={**os.environ, **BUILD}, check=False)
    if done.returncode:
        log = f"bench/results/install-{entry.requirements}.log"
        raise UnavailableError(f"{entry.distribution} cannot be installed: {log} says why")


def version_in(entry: Entry) -> str:
    """Returns the version of the contender's package in its environment."""
    program = f"from importlib.metadata import version; print(version({entry.distribution!r}))"
    done = subprocess.run([str(python_of(entry)), "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()
