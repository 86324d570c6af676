"""Finds a task by its name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from decodery.errors import ParameterError
from decodery.evaluation.contract import Task

# Each name is that of the task's module, with the name of the task in it.
MODULES: dict[str, tuple[str, str]] = {
    "arc": ("arc", "TASK"),
    "bias": ("bias", "TASK"),
    "crows_pairs": ("crows_pairs", "TASK"),
    "stereoset": ("stereoset", "TASK"),
    "winobias": ("winobias", "TASK"),
}


def find_task(name: str, *, allow_code: bool = False) -> Task:
    """Returns a task. Raises `ParameterError` for an unknown name, with those that are like it."""
    if name not in MODULES:
        near = get_close_matches(name, MODULES, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ParameterError(f"there is no task {name}{hint} decodery eval tasks lists them")
    module, attribute = MODULES[name]
    found: Task = getattr(import_module(f"decodery.evaluation.tasks.{module}"), attribute)
    return found
