"""Reads options such as "auto", "bfloat16" or "512MB", and the memory of this machine."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch

from decodery.errors import ParameterError
from decodery.weights.formats.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def dtype_named(name: str, checkpoint: Checkpoint, backend: str) -> torch.dtype:
    """Returns the dtype to compute in.

    On the native backend that is float32. On the reference backend "auto" is float32 for float32 weights; for
    others it is bfloat16 if the processor multiplies bfloat16 itself, else float32.
    """
    check_dtype(name)
    if backend == "native":
        return torch.float32
    if name in DTYPES:
        return DTYPES[name]
    stored = {info.dtype for info in checkpoint.tensors.values() if len(info.shape) > 1}
    return torch.float32 if stored == {"float32"} or not _fast_bfloat16() else torch.bfloat16


def check_dtype(name: str) -> None:
    """Raises `ParameterError` unless `dtype_named` knows the name."""
    if name not in ("auto", *DTYPES):
        raise ParameterError(f"dtype must be auto, {' or '.join(DTYPES)}, not {name!r}")


def _fast_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def memory_size(size: int | str) -> int:
    """Returns bytes from a number or a text such as "512MB", "2 GiB" or "1e9".

    Raises `ParameterError` for anything else, and for more than the machine has.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d+)?)\s*([KMG]i?B)?", str(size).strip(), re.IGNORECASE)
    if match is None or isinstance(size, bool):
        raise ParameterError(f"a memory size is bytes or such as 512MB or 2GiB, not {size!r}")
    found = float(match[1]) * _UNITS[(match[2] or "").upper()]
    if found > total_memory():
        raise ParameterError(
            f"a memory size of {size} is more than this machine has: "
            f"{total_memory() / 10**9:.1f}GB, of which {available_memory() / 10**9:.1f}GB are free"
        )
    return int(found)


def total_memory() -> float:
    """Returns the bytes of memory that this process can have at most; infinite if they are unknown."""
    try:
        total: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
    try:
        return min(total, int((CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):
        return total


def available_memory() -> int:
    """Returns the bytes that new allocations can have, by the system's estimate; 4 GB without one."""
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 10**9
    try:
        return max(min(available, _left_in_cgroup()), 0)
    except (OSError, KeyError, ValueError):
        return available


def _left_in_cgroup() -> int:
    """Returns the bytes that the container's limit leaves.

    Cached files count as free, since the system can drop them.
    """
    used = int((CGROUP / "memory.current").read_text())
    counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    return int((CGROUP / "memory.max").read_text()) - used + int(counts["inactive_file"])
