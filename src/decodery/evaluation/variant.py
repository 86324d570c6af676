"""Defines what a user changes of a task's published form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Protocol, get_args, runtime_checkable

from decodery.errors import ParameterError
from decodery.evaluation.contract import Task

Options = Literal["texts", "letters", "numbers"]
Method = Literal["compare", "parse"]
KNOWN = {"options": get_args(Options), "method": get_args(Method)}


@dataclass(frozen=True, slots=True)
class Variant:
    """Holds what is changed of a task; None leaves the published form.

    `options` and `method` are those of `ChoiceStyle`. `ending` comes after the question. `split` is the split
    of the data that is asked about, `max_tokens` the length of a written answer, and `shuffle` the
    seed of the order in which options are shown. `source_language` and `target_language` are what a
    translation is from and into, as the data spells them. Raises `ParameterError` for another value.
    """

    options: str | None = None
    method: str | None = None
    ending: str | None = None
    split: str | None = None
    max_tokens: int | None = None
    shuffle: int | None = None
    source_language: str | None = None
    target_language: str | None = None

    def __post_init__(self) -> None:
        for name, known in KNOWN.items():
            if getattr(self, name) not in (None, *known):
                raise ParameterError(f"{name} must be one of {', '.join(known)}: {getattr(self, name)!r}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ParameterError(f"max_tokens must be 1 or more: {self.max_tokens}")

    @property
    def changed(self) -> tuple[str, ...]:
        """Returns the names of what is changed."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def only(self, task: str, *known: str) -> None:
        """Raises `ParameterError` if more is changed than what is known to a task."""
        if unknown := [name for name in self.changed if name not in known]:
            raise ParameterError(f"{task} takes no {', '.join(unknown)}: leave it out")


@runtime_checkable
class Variable(Protocol):
    """Is a task that has other forms."""

    def varied(self, variant: Variant) -> Task:
        """Returns the task in another form. Raises `ParameterError` for a form that it has not."""


def varied(task: Task, variant: Variant) -> Task:
    """Returns a task in another form. Raises `ParameterError` if the task has no such form."""
    if isinstance(task, Variable):
        return task.varied(variant)
    variant.only(task.name)
    return task
