"""Draws how contrastive search weighs its candidates: confidence to the right, penalty to the left."""

from __future__ import annotations

from decodery.decoding.request.strategy_params import ContrastiveSearch
from decodery.decoding.trace import Considered, Weighed
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, bar, document, rule
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import fitted, line

_ROW = 17.0
_GAP = 8.0
_ZERO = 430.0
_SCALE = 250.0


def weighing_picture(trace: GenerationTrace, positions: int) -> str:
    """Returns the picture of the tokens that were compared at the first positions of a completion."""
    strategy = trace.params.strategy
    assert isinstance(strategy, ContrastiveSearch)
    parts = [_head()]
    y = 26.0
    choices = [c for step in trace.steps[0] for c in step.considered]
    for number, considered in enumerate(choices[:positions], 1):
        parts.append(line(20, y + 12, str(number), kind="dim small", anchor="end"))
        for weighed in considered.weighed:
            parts.append(_row(trace, considered, weighed, strategy.penalty_alpha, y))
            y += _ROW
        y += _GAP
    axis = element("line", class_="rule", x1=_ZERO, x2=_ZERO, y1=22.0, y2=y - _GAP)
    return document(trace, joined([*parts, axis]), y)


def _head() -> Markup:
    return joined(
        [
            line(30, 12, "candidate", kind="dim small"),
            line(_ZERO - 8, 12, "← α · similarity", kind="dim small", anchor="end"),
            line(_ZERO + 8, 12, "(1 − α) · probability →", kind="dim small"),
            line(WIDTH, 12, "score", kind="dim small", anchor="end"),
            rule(18),
        ]
    )


def _row(trace: GenerationTrace, considered: Considered, weighed: Weighed, alpha: float, y: float) -> Markup:
    taken = weighed.token == considered.token
    penalty = alpha * weighed.similarity * _SCALE
    gain = (1 - alpha) * weighed.probability * _SCALE
    end = " taken" if taken else ""
    label = fitted(trace.label(weighed.token), 16)
    return joined(
        [
            line(30, y + 12, ("● " if taken else "  ") + label, kind="strong" if taken else None),
            bar(_ZERO - penalty, y + 2, penalty, f"penalty{end}", height=12),
            bar(_ZERO, y + 2, gain, f"after{end}", height=12),
            line(WIDTH, y + 12, f"{weighed.score:+.2f}", kind="strong" if taken else "dim", anchor="end"),
        ]
    )
