"""Checks that a forked child generates what its parent does, with every strategy, backend and lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decodery.kernels.native.library import available
from tests.forked import LAWS, SECONDS

BACKENDS = ("torch", "native") if available() else ("torch",)


# A process for each is slow. The other laws differ in who forks when, not in what is restored.
FAST = {("a_child", "torch", 2), ("a_child", "native", 2), ("a_fork_beside_threads", "native", 2)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("law", "backend", "threads"),
    [
        pytest.param(law, backend, threads, marks=() if (law, backend, threads) in FAST else pytest.mark.slow)
        for law in LAWS
        for backend in BACKENDS
        for threads in (2, 1)
    ],
)
def test_a_forked_child_generates_what_its_parent_does(law: str, backend: str, threads: int) -> None:
    settings = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.forked", law, backend, str(threads)],
        cwd=Path(__file__).parent.parent,
        env=settings,
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"at {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
