"""Finds a task by its name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import Task
from decodery.evaluation.own.own_task import read_task

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
# Each name is that of the task's module, with the name of the task in it.
MODULES: dict[str, tuple[str, str]] = {
    "arc": ("arc", "TASK"),
    "arc_challenge": ("arc", "CHALLENGE"),
    "arc_easy": ("arc", "EASY"),
    "bias": ("bias", "TASK"),
    "crows_pairs": ("crows_pairs", "TASK"),
    **{f"glue_{name}": ("glue", name.upper()) for name in GLUE},
    "gsm8k": ("gsm8k", "TASK"),
    "hellaswag": ("hellaswag", "TASK"),
    "lambada": ("lambada", "TASK"),
    "mmlu": ("mmlu", "TASK"),
    "perplexity": ("perplexity", "TASK"),
    "squad": ("squad", "TASK"),
    "stereoset": ("stereoset", "TASK"),
    "truthfulqa": ("truthfulqa", "TASK"),
    "truthfulqa_letters": ("truthfulqa", "LETTERS"),
    "winobias": ("winobias", "TASK"),
    "winogrande": ("winogrande", "TASK"),
}


def find_task(name: str, *, allow_code: bool = False) -> Task:
    """Returns the task of a name, or the task that a TOML file describes.

    Raises `ParameterError` for an unknown name, with those that are like it, and for a fault in the file.
    """
    if name.endswith(".toml"):
        return read_task(Path(name))
    if name not in MODULES:
        near = get_close_matches(name, MODULES, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ParameterError(f"there is no task {name}{hint} decodery eval tasks lists them")
    module, attribute = MODULES[name]
    found: Task = getattr(import_module(f"decodery.evaluation.tasks.{module}"), attribute)
    return found
