"""Which backend, and which precision of its cache, a name stands for."""

from __future__ import annotations

import torch

from decodery.errors import ParameterError
from decodery.kernels import reference
from decodery.kernels.backend import Kernels
from decodery.kernels.library import available
from decodery.kernels.native import Native

KV_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
BACKENDS = ("auto", "reference", "native")


def backend_named(name: str) -> Kernels:
    """The kernels of a backend; "auto" is the fastest that this machine has. Raises `ParameterError`."""
    if name not in BACKENDS:
        raise ParameterError(f"backend must be {' or '.join(BACKENDS)}, not {name!r}")
    if name != "native":
        return reference
    if not available():
        raise ParameterError(
            "the native backend is not built: install the package from source with a C++20 compiler"
        )
    return Native()


def kv_dtype_named(name: str, kernels: Kernels, dtype: torch.dtype) -> torch.dtype:
    """The dtype that keys and values are kept in; "auto" is what the kernels like for activations of `dtype`.

    Raises `ParameterError` for an unknown name.
    """
    check_kv_dtype(name)
    return kernels.cache_dtype(dtype) if name == "auto" else KV_DTYPES[name]


def check_kv_dtype(name: str) -> None:
    """Raise `ParameterError` unless `kv_dtype_named` knows the name."""
    if name not in ("auto", *KV_DTYPES):
        *most, last = KV_DTYPES
        raise ParameterError(f"kv_dtype must be auto, {', '.join(most)} or {last}, not {name!r}")
