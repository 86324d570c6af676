"""Implements `decodery eval tasks`."""

from __future__ import annotations

from decodery.evaluation.tasks.registry import MODULES, described_task
from decodery.evaluation.vectors.contract import VectorTask


def tasks() -> None:
    """Prints each task with its published number of shots, or says that it is for encoders."""
    width = max(map(len, MODULES))
    for name in sorted(MODULES):
        task = described_task(name)
        about = "an encoder's vectors" if isinstance(task, VectorTask) else f"{task.shots} shots"
        print(f"{name:<{width}}  {about}")
