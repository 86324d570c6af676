"""Finds the marks around a model's reasoning, and where a reply begins."""

from __future__ import annotations

from collections.abc import Callable

from decodery.text.streaming.regions import Beginning

_PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<thinking>", "</thinking>"),
)


def reasoning_marks(template: str, token_id: Callable[[str], int | None]) -> tuple[str, str] | None:
    """Returns the marks around reasoning: those in the template's text, or else in the vocabulary."""
    for pair in _PAIRS:
        if pair[1] in template:
            return pair
    return next((pair for pair in _PAIRS if all(token_id(mark) is not None for mark in pair)), None)


def is_reasoning_mark(text: str) -> bool:
    """True if a text is one of the marks that models write around reasoning."""
    return any(text in pair for pair in _PAIRS)


def beginning_after(prompt: str, marks: tuple[str, str] | None, started: str | None = None) -> Beginning:
    """Returns where a reply begins, by the end of the rendered prompt.

    `started` is the part of the reply that the prompt contains, if the reply continues one.
    """
    if marks is None:
        return "content"
    if started is not None:
        opened, closed = started.rfind(marks[0]), started.rfind(marks[1])
        if opened > closed:
            return "reasoning"
        if started.strip():
            return "content"
    end = prompt.rstrip()
    if end.endswith(marks[1]):
        return "content"
    return "reasoning" if end.endswith(marks[0]) else "open"
