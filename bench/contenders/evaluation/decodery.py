"""Measures a model with this package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def prepare() -> None:
    """Imports the library."""
    import decodery.evaluation  # noqa: F401


def load(model: Path, threads: int) -> Decodery:
    """Loads the model."""
    return Decodery(model, threads)


class Decodery:
    """Runs ARC over a model."""

    serving = ""

    def __init__(self, model: Path, threads: int) -> None:
        from decodery import LLM
        from decodery.evaluation import Subject

        self._subject = Subject(LLM(model, threads=threads))

    def evaluate(self, data: str, shots: int, letters: bool, batch: int) -> dict[str, Any]:
        """Returns the seconds of a whole run over the data, and the accuracy. There is no size of batch."""
        from decodery.evaluation import run
        from decodery.evaluation.choice_task import ChoiceTask
        from decodery.evaluation.tasks.registry import find_task
        from decodery.evaluation.variant import Variant

        task = find_task("arc")
        assert isinstance(task, ChoiceTask)
        chosen = task.varied(Variant(options="letters")) if letters else task
        start = time.perf_counter()
        found = run(chosen, self._subject, data=data, shots=shots)
        return {"seconds": time.perf_counter() - start, "accuracy": found.results["acc"].value}
