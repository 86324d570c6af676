"""The machine: what it is called, and what it can do at most."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from bench.peers.environments import UnavailableError

SOURCE = Path(__file__).with_suffix(".cpp")


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(threads: int) -> dict[str, str | int]:
    """For the head of a table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "threads": f"{threads} threads on {cores()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
    }


class Limits:
    """The machine's bandwidth and byte products, measured by a small program that is compiled here."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "machine"
        flags = ["-O3", "-march=native", "-std=c++20", "-pthread"]
        command = [os.environ.get("CXX", "c++"), *flags, str(SOURCE), "-o", str(self.program)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"shares of the machine: {SOURCE.name} cannot be compiled here") from error

    def measure(self, threads: int) -> dict[str, float]:
        """`bandwidth` in bytes and `int8` in operations a second; int8 is 0 where it is not known."""
        done = subprocess.run([str(self.program), str(threads)], check=True, capture_output=True)
        limits: dict[str, float] = json.loads(done.stdout)
        return limits
