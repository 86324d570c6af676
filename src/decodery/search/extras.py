"""Imports the libraries of the extra `search`, each when it is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from decodery.errors import DecoderyError

INSTALL = 'pip install "decodery[search]"'


def extra(module: str, purpose: str) -> Any:
    """Returns a module; raises `DecoderyError` that names the command which installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        library = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
        raise DecoderyError(f"{purpose} needs {library}: run {INSTALL} ({error})") from None
