"""Measures the time from the shell to the first token."""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter


def first_token(rounds: int) -> tuple[list[float], list[float]]:
    """Returns each round's seconds to the first byte of `decodery generate`, and those of importing torch."""
    command = [sys.executable, "-m", "decodery", "generate", "Once upon a time", "--temperature", "0"]
    # The first round, which is not counted, compiles the modules, as they are in an installed package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    starts, imports = [], []
    for round_number in range(-1, rounds):
        start = perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            elapsed = perf_counter() - start
            process.kill()
        assert first, "nothing was generated"
        start = perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        if round_number >= 0:
            starts.append(elapsed)
            imports.append(perf_counter() - start)
    return starts, imports
