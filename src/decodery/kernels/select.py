"""Which backend a name stands for."""

from __future__ import annotations

from decodery.errors import ParameterError
from decodery.kernels import reference
from decodery.kernels.backend import Kernels

BACKENDS: dict[str, Kernels] = {"auto": reference, "reference": reference}


def backend_named(name: str) -> Kernels:
    """The kernels of a backend; "auto" is the fastest that this machine has. Raises `ParameterError`."""
    if name not in BACKENDS:
        raise ParameterError(f"backend must be {' or '.join(BACKENDS)}, not {name!r}")
    return BACKENDS[name]
