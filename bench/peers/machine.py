"""Names the machine and measures its limits."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from bench.peers.environments import UnavailableError

SOURCE = Path(__file__).with_suffix(".cpp")


def processor() -> str:
    """Returns the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_facts(threads: int) -> dict[str, str | int]:
    """Returns the processor, threads, memory, system and Python for the head of a table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "threads": f"{threads} threads on {cores()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
    }


class Limits:
    """Measures the machine's limits with a small program, which is compiled into `folder`.

    Raises `UnavailableError` when it cannot be compiled.
    """

    def __init__(self, folder: Path) -> None:
        self.program = folder / "machine"
        flags = ["-O3", "-march=native", "-std=c++20", "-pthread"]
        command = [os.environ.get("CXX", "c++"), *flags, str(SOURCE), "-o", str(self.program)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"shares of the machine: {SOURCE.name} cannot be compiled here") from error

    def measure(self, threads: int) -> dict[str, float]:
        """Returns `bandwidth` in bytes and `int8` in operations a second; int8 is 0 without vector code."""
        done = subprocess.run([str(self.program), str(threads)], check=True, capture_output=True)
        limits: dict[str, float] = json.loads(done.stdout)
        return limits
