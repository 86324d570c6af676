"""Selects the backend, and the dtype of its cache, by name."""

from __future__ import annotations

import warnings

import torch

from decodery.errors import ParameterError
from decodery.kernels.contract import Kernels
from decodery.kernels.native.library import first_instruction_set, missing
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.quantise import QUANTIZATIONS
from decodery.kernels.reference import torch_kernels

KV_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
BACKENDS = ("auto", "torch", "native")


def chosen_backend(backend: str, dtype: str = "auto", quantization: str | None = None) -> str:
    """Returns "torch" or "native" for the options of a user.

    "auto" is native where its kernels are built and the other options allow it: the native backend computes
    only in float32, and it alone has quantised weights. "reference", the older name of "torch", still works
    with a `DeprecationWarning`. Raises `ParameterError` for options that exclude each other, and for an
    instruction set that this processor cannot run.
    """
    backend = current_name(backend, stacklevel=5)
    if backend not in BACKENDS:
        raise ParameterError(f"backend must be {' or '.join(BACKENDS)}, not {backend!r}")
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise ParameterError(
            f"quantization must be None or {' or '.join(QUANTIZATIONS)}, not {quantization!r}"
        )
    problem = missing()
    if problem is None:
        first_instruction_set()  # Raises here rather than in the first step: every backend uses some kernels.
    if backend == "torch":
        if quantization is not None:
            raise ParameterError(
                f"quantization={quantization} and backend=torch do not go together: only native kernels"
                " multiply by packed weights, so leave out one of them"
            )
        return backend
    asked = f"quantization={quantization}" if quantization is not None else f"backend={backend}"
    if problem is None and dtype != "bfloat16":
        return "native"
    if asked == "backend=auto":
        return "torch"
    if problem is not None:
        raise ParameterError(f"{asked}: {problem}")
    raise ParameterError(
        f"dtype=bfloat16 and {asked} do not go together: the native kernels compute in float32"
    )


def current_name(backend: str, stacklevel: int = 3) -> str:
    """Returns "torch" for its older name "reference", with a `DeprecationWarning`; else the name."""
    if backend != "reference":
        return backend
    warnings.warn('backend="reference" is now backend="torch"', DeprecationWarning, stacklevel=stacklevel)
    return "torch"


def backend_named(name: str) -> Kernels:
    """Returns the kernels of "torch" or "native"."""
    return NativeKernels() if name == "native" else torch_kernels


def kv_dtype_named(name: str, kernels: Kernels, dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of cached keys and values; "auto" is the kernels' default for activations of `dtype`.

    Raises `ParameterError` for an unknown name.
    """
    check_kv_dtype(name)
    return kernels.cache_dtype(dtype) if name == "auto" else KV_DTYPES[name]


def check_kv_dtype(name: str) -> None:
    """Raises `ParameterError` unless `kv_dtype_named` knows the name."""
    if name not in ("auto", *KV_DTYPES):
        *most, last = KV_DTYPES
        raise ParameterError(f"kv_dtype must be auto, {', '.join(most)} or {last}, not {name!r}")
