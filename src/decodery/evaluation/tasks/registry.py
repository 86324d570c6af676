"""Finds a task by its name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from decodery.errors import ParameterError
from decodery.evaluation.contract import Task
from decodery.evaluation.own.own_task import read_task
from decodery.evaluation.vectors.contract import VectorTask

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
# Each name is that of the task's module, with the name of the task in it.
MODULES: dict[str, tuple[str, str]] = {
    "arc": ("arc", "TASK"),
    "arc_challenge": ("arc", "CHALLENGE"),
    "arc_easy": ("arc", "EASY"),
    "banking77": ("vector_tasks", "BANKING77"),
    "bias": ("bias", "TASK"),
    "classification": ("vector_tasks", "CLASSIFICATION"),
    "clustering": ("vector_tasks", "CLUSTERING"),
    "crows_pairs": ("crows_pairs", "TASK"),
    **{f"glue_{name}": ("glue", name.upper()) for name in GLUE},
    "gsm8k": ("gsm8k", "TASK"),
    "hellaswag": ("hellaswag", "TASK"),
    "humaneval": ("human_eval", "TASK"),
    "humaneval_instruct": ("human_eval", "INSTRUCTED"),
    "lambada": ("lambada", "TASK"),
    "mmlu": ("mmlu", "TASK"),
    "perplexity": ("perplexity", "TASK"),
    "reranking": ("vector_tasks", "RERANKING"),
    "retrieval": ("vector_tasks", "RETRIEVAL"),
    "squad": ("squad", "TASK"),
    "stereoset": ("stereoset", "TASK"),
    "stsb": ("vector_tasks", "STSB"),
    "summarisation": ("rewriting", "SUMMARISATION"),
    "translation": ("rewriting", "TRANSLATION"),
    "truthfulqa": ("truthfulqa", "TASK"),
    "truthfulqa_letters": ("truthfulqa", "LETTERS"),
    "winobias": ("winobias", "TASK"),
    "winogrande": ("winogrande", "TASK"),
}


class RunsCode(Task, Protocol):
    """Is a task that runs programs that a model wrote."""

    def allowed(self, allow_code: bool) -> Task:
        """Returns the task, ready to run them. Raises `ParameterError` unless `allow_code` is True."""


def find_task(name: str, *, allow_code: bool = False) -> Task | VectorTask:
    """Returns the task of a name, or the task that a TOML file describes, ready to run.

    Raises `ParameterError` as `described_task` does, for a fault in the file, and for a task that runs
    programs that a model wrote unless `allow_code` is True.
    """
    if name.endswith(".toml"):
        return read_task(Path(name))
    task = described_task(name)
    if hasattr(task, "allowed"):
        return cast("RunsCode", task).allowed(allow_code)
    return task


def described_task(name: str) -> Task | VectorTask:
    """Returns a task, to read its settings. Raises `ParameterError` for an unknown name."""
    if name not in MODULES:
        near = get_close_matches(name, MODULES, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ParameterError(f"there is no task {name}{hint} decodery eval tasks lists them")
    module, attribute = MODULES[name]
    found: Task | VectorTask = getattr(import_module(f"decodery.evaluation.tasks.{module}"), attribute)
    return found
