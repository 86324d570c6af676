"""Draws one row for each token: its likeliest candidates, the chosen one, and those that were cut."""

from __future__ import annotations

from decodery.decoding.trace import Candidate, Considered
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, document, rule, stacked
from decodery.pictures.markup import Markup, joined, percent
from decodery.pictures.svg_sheet import fitted, line

ROW = 21.0
TOKEN = 110.0
FACTS = 204.0
_LEFT = 30.0 + TOKEN
_BAR = WIDTH - _LEFT - FACTS


def choice_rows_picture(trace: GenerationTrace) -> str:
    """Returns the picture of the first completion's choices."""
    choices = [c for step in trace.steps.get(0, ()) for c in step.considered]
    constrained = any(c.allowed is not None for c in choices)
    parts = [_head(constrained)]
    y = 26.0
    for number, considered in enumerate(choices, 1):
        parts.append(_row(trace, number, considered, y))
        y += ROW
    return document(trace, joined(parts), y)


def _head(constrained: bool) -> Markup:
    crossed = ", crossed out: not allowed by the grammar" if constrained else ""
    return joined(
        [
            line(30, 12, "token", kind="dim small"),
            line(
                _LEFT, 12, f"probabilities under the model; in strong blue: chosen{crossed}", kind="dim small"
            ),
            rule(18),
        ]
    )


def _row(trace: GenerationTrace, number: int, considered: Considered, y: float) -> Markup:
    shares = [c.before for c in considered.candidates]
    labels = [trace.label(c.token) for c in considered.candidates]
    kinds = [_kind(c, considered) for c in considered.candidates]
    right = _LEFT + _BAR + 14
    return joined(
        [
            line(20, y + 12, str(number), kind="dim small", anchor="end"),
            line(30, y + 12, fitted(trace.label(considered.token), 14), kind="strong"),
            stacked(shares, labels, kinds, _LEFT, y + 1, _BAR),
            line(right + 42, y + 12, percent(considered.before), kind="strong", anchor="end"),
            line(right + 54, y + 12, _facts(considered), kind="dim small"),
        ]
    )


def _kind(candidate: Candidate, considered: Considered) -> str:
    if candidate.token == considered.token:
        return "model taken"
    return "model cut" if candidate.after == 0 else "model"


def _facts(considered: Considered) -> str:
    if considered.allowed is None:
        return f"{considered.entropy:.1f} bits"
    if considered.forced:
        return f"rank {considered.rank}, the only one"
    return f"rank {considered.rank}, of {considered.allowed} allowed"
