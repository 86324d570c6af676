"""Which backend a name stands for."""

from __future__ import annotations

from decodery.errors import ParameterError
from decodery.kernels import reference
from decodery.kernels.backend import Kernels
from decodery.kernels.library import available
from decodery.kernels.native import Native

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
