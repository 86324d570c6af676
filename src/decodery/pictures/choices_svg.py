"""Draws the choices of a sampled text as SVG: each token's row shows the probabilities of its candidates."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.decoding.trace import Considered
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined, percent
from decodery.pictures.svg_sheet import CELL, fitted, line

WIDTH = 1112.0
ROW = 38.0
NUMBER = 34.0
TOKEN = 150.0
FACTS = 300.0
BAR = WIDTH - NUMBER - TOKEN - FACTS


def choices_svg(trace: GenerationTrace) -> tuple[Markup, float]:
    """Returns the tables of all completions below each other, `WIDTH` wide, and their height."""
    parts: list[Markup] = []
    y = 0.0
    for place, completion in enumerate(trace.completions, 1):
        if len(trace.completions) > 1:
            parts.append(line(0, y + 16, f"completion {place}", kind="strong"))
            y += 24
        parts.append(_columns(y))
        y += 22
        choices = [c for step in trace.steps.get(completion.index, ()) for c in step.considered]
        drafted = _drafted_positions(trace, completion.index)
        for number, considered in enumerate(choices):
            row = _row(trace, number, considered, drafted=number in drafted)
            parts.append(element("g", row, transform=f"translate(0 {y:.0f})"))
            y += ROW
        ended = f"ended by {completion.finish_reason}"
        parts.append(line(0, y + 16, ended, kind="dim"))
        y += 34
    return joined(parts), y


def _drafted_positions(trace: GenerationTrace, stream: int) -> set[int]:
    """Returns the positions of the tokens that a draft proposed."""
    positions: set[int] = set()
    base = 0
    for step in trace.steps.get(stream, ()):
        positions.update(range(base, base + step.accepted))
        base += len(step.tokens)
    return positions


def _columns(y: float) -> Markup:
    left = NUMBER + TOKEN
    return joined(
        [
            line(NUMBER, y + 12, "token", kind="dim small"),
            line(left, y + 12, "above: under the model; below: after processing", kind="dim small"),
            line(left + BAR + 16, y + 12, "probability, rank, entropy, tokens kept", kind="dim small"),
            element("line", class_="rule", x1=0.0, x2=WIDTH, y1=y + 18.5, y2=y + 18.5),
        ]
    )


def _row(trace: GenerationTrace, number: int, considered: Considered, *, drafted: bool) -> Markup:
    left = NUMBER + TOKEN
    right = left + BAR + 16
    marks = [m for m, on in (("forced", considered.forced), ("drafted", drafted)) if on]
    allowed = "" if considered.allowed is None else f", grammar allows {considered.allowed:,}"
    facts = f"rank {considered.rank:,}, {considered.entropy:.2f} bits, {considered.kept:,} kept{allowed}"
    before, after = ([c.before for c in considered.candidates], [c.after for c in considered.candidates])
    return joined(
        [
            line(NUMBER - 10, 20, str(number + 1), kind="dim small", anchor="end"),
            line(NUMBER, 20, fitted(trace.label(considered.token), 19), kind="strong"),
            _bar(trace, considered, before, "model", left, 3.0),
            _bar(trace, considered, after, "after", left, 19.0),
            line(right, 14, f"{percent(considered.before)} → {percent(considered.after)}", kind="strong"),
            line(right + 130, 14, ", ".join(marks), kind="small"),
            line(right, 29, fitted(facts, 47), kind="dim small"),
        ]
    )


def _bar(
    trace: GenerationTrace,
    considered: Considered,
    shares: Sequence[float],
    kind: str,
    left: float,
    top: float,
) -> Markup:
    """Draws the candidates side by side; each is as wide as its probability."""
    parts = [element("rect", class_="track", x=left, y=top, width=BAR, height=14, rx=2)]
    x = left
    for candidate, share in zip(considered.candidates, shares, strict=True):
        width = share * BAR
        taken = " taken" if candidate.token == considered.token else ""
        label = trace.label(candidate.token)
        if width >= 1:
            title = element("title", f"{label} {percent(share)}")
            parts.append(
                element("rect", title, class_=kind + taken, x=x, y=top, width=max(width - 1, 0.5), height=14)
            )
        cells = int((width - 8) / (10 * CELL))
        if cells >= 2 or (cells == 1 and len(label) == 1):
            parts.append(line(x + 4, top + 11, fitted(label, cells), kind=f"inside{taken}"))
        x += width
    return joined(parts)
