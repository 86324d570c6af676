"""Implements `decodery eval tasks`."""

from __future__ import annotations

from decodery.evaluation.tasks.registry import MODULES, find_task


def tasks() -> None:
    """Prints each task with its published number of shots."""
    for name in sorted(MODULES):
        task = find_task(name)
        print(f"{name:<16} {task.shots} shots")
