"""Declares a flag as a field of a dataclass."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str, *, panel: str = "Options", **more: str) -> Any:
    """Returns a field that `with_flags` makes a flag of the help's `panel`; `more` are its further metadata.

    These are `short`, a second spelling, and `metavar`, which stands for the value.
    """
    return field(default=default, metadata={"help": help, "panel": panel, **more})
