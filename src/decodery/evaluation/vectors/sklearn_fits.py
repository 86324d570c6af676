"""Gives tasks scikit-learn, which is an optional library, on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from decodery.errors import DecoderyError


def scikit_learn(module: str) -> Any:
    """Returns a module of scikit-learn. Raises `DecoderyError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise DecoderyError(
            'this task needs scikit-learn: install it with pip install "decodery[evaluation]"'
        ) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets numerical libraries use one thread, so that sums are in the same order at each run."""
    with scikit_learn("threadpoolctl").threadpool_limits(1):
        yield
