"""Draws one row for each step of a run with drafts: right drafts, the next token, and wrong drafts."""

from __future__ import annotations

from decodery.pictures.generation_trace import GenerationTrace, Step
from decodery.pictures.learn.layout import document, rule
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import CELL, line

_ROW = 26.0
_CELL = 12 * CELL


def draft_rows_picture(trace: GenerationTrace) -> str:
    """Returns the picture of the first completion's steps."""
    steps = trace.steps.get(0, [])
    drafts = sum(len(step.drafts) for step in steps)
    accepted = sum(step.accepted for step in steps)
    tokens = sum(len(step.tokens) for step in steps)
    parts = [_head()]
    y = 28.0
    for number, step in enumerate(steps, 1):
        parts.append(_row(trace, number, step, y))
        y += _ROW
    total = f"{tokens} tokens in {len(steps)} steps; {accepted} of {drafts} drafts were right"
    parts += [rule(y + 2), line(0, y + 20, total, kind="strong")]
    return document(trace, joined(parts), y + 26)


def _head() -> Markup:
    return joined(
        [
            line(0, 12, "step", kind="dim small"),
            line(44, 12, "green: drafts that were right", kind="dim small"),
            line(238, 12, "blue: the model's own next token", kind="dim small"),
            line(452, 12, "crossed out: drafts that were wrong", kind="dim small"),
            rule(18),
        ]
    )


def _row(trace: GenerationTrace, number: int, step: Step, y: float) -> Markup:
    parts = [line(24, y + 14, str(number), kind="dim small", anchor="end")]
    right, own = step.tokens[: step.accepted], step.tokens[step.accepted :]
    kinds = [*(("right", t) for t in right), *(("own", t) for t in own)]
    kinds += [("wrong", t) for t in step.drafts[step.accepted :]]
    x = 44.0
    for kind, token in kinds:
        label = trace.label(token)
        width = len(label) * _CELL + 12
        parts.append(element("rect", class_=f"piece {kind}", x=x, y=y, width=width, height=20, rx=5))
        parts.append(line(x + 6, y + 14, label, kind=f"piece-text {kind}"))
        x += width + 4
    return joined(parts)
