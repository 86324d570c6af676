"""Checks that the program that stresses the threads, for `make sanitize`, fits the arguments of kernels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_stress_program_compiles() -> None:
    command = ["c++", "-std=c++20", "-fsyntax-only", "tests/native/stress.cpp"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
