"""What a user writes as "auto", "bfloat16" or "512MB", and what this machine has."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from decodery.errors import ParameterError
from decodery.weights.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def dtype_named(name: str, checkpoint: Checkpoint) -> torch.dtype:
    """The dtype to compute in. "auto" is float32 for float32 weights, and otherwise bfloat16 where the
    processor multiplies bfloat16 itself."""
    check_dtype(name)
    if name in DTYPES:
        return DTYPES[name]
    stored = {info.dtype for info in checkpoint.tensors.values() if len(info.shape) > 1}
    return torch.float32 if stored == {"float32"} or not _fast_bfloat16() else torch.bfloat16


def check_dtype(name: str) -> None:
    """Raise `ParameterError` unless `dtype_named` knows the name."""
    if name not in ("auto", *DTYPES):
        raise ParameterError(f"dtype must be auto, {' or '.join(DTYPES)}, not {name!r}")


def _fast_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def memory_size(size: int | str) -> int:
    """Bytes from a number or such as "512MB" or "2 GiB". Raises `ParameterError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", str(size).strip(), re.IGNORECASE)
    if match is None or isinstance(size, bool):
        raise ParameterError(f"a memory size is bytes or such as 512MB or 2GiB, not {size!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def available_memory() -> int:
    """Bytes that new allocations can have, by the system's own estimate; 4 GB where it has none."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 10**9
    try:
        return min(available, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return available
