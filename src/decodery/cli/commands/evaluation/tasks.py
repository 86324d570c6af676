"""Implements `decodery eval tasks`."""

from __future__ import annotations

from decodery.evaluation.tasks.registry import MODULES, described_task


def tasks() -> None:
    """Prints each task with its published number of shots."""
    for name in sorted(MODULES):
        task = described_task(name)
        print(f"{name:<16} {task.shots} shots")
