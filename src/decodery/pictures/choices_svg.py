"""The choices of a sampled text as SVG: a row a token, with what shared the probability."""

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


def choices_svg(story: GenerationTrace) -> tuple[Markup, float]:
    """All completions' tables below each other, `WIDTH` wide, and how tall that is."""
    parts: list[Markup] = []
    y = 0.0
    for place, completion in enumerate(story.completions, 1):
        if len(story.completions) > 1:
            parts.append(line(0, y + 16, f"completion {place}", kind="strong"))
            y += 24
        parts.append(_columns(y))
        y += 22
        choices = [c for step in story.steps.get(completion.index, ()) for c in step.considered]
        drafts = _accepted(story, completion.index)
        for number, considered in enumerate(choices):
            row = _row(story, number, considered, drafted=number in drafts)
            parts.append(element("g", row, transform=f"translate(0 {y:.0f})"))
            y += ROW
        ended = f"ended by {completion.finish_reason}"
        parts.append(line(0, y + 16, ended, kind="dim"))
        y += 34
    return joined(parts), y


def _accepted(story: GenerationTrace, stream: int) -> set[int]:
    """The places of tokens that were drafted."""
    places: set[int] = set()
    base = 0
    for step in story.steps.get(stream, ()):
        places.update(range(base, base + step.accepted))
        base += len(step.tokens)
    return places


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


def _row(story: GenerationTrace, number: int, considered: Considered, *, drafted: bool) -> Markup:
    left = NUMBER + TOKEN
    right = left + BAR + 16
    marks = [m for m, on in (("forced", considered.forced), ("drafted", drafted)) if on]
    allowed = "" if considered.allowed is None else f", grammar allows {considered.allowed:,}"
    facts = f"rank {considered.rank:,}, {considered.entropy:.2f} bits, {considered.kept:,} kept{allowed}"
    before, after = ([c.before for c in considered.candidates], [c.after for c in considered.candidates])
    return joined(
        [
            line(NUMBER - 10, 20, str(number + 1), kind="dim small", anchor="end"),
            line(NUMBER, 20, fitted(story.label(considered.token), 19), kind="strong"),
            _bar(story, considered, before, "model", left, 3.0),
            _bar(story, considered, after, "after", left, 19.0),
            line(right, 14, f"{percent(considered.before)} → {percent(considered.after)}", kind="strong"),
            line(right + 130, 14, ", ".join(marks), kind="small"),
            line(right, 29, fitted(facts, 47), kind="dim small"),
        ]
    )


def _bar(
    story: GenerationTrace,
    considered: Considered,
    shares: Sequence[float],
    kind: str,
    left: float,
    top: float,
) -> Markup:
    """The candidates side by side, as wide as they are likely."""
    parts = [element("rect", class_="track", x=left, y=top, width=BAR, height=14, rx=2)]
    x = left
    for candidate, share in zip(considered.candidates, shares, strict=True):
        width = share * BAR
        taken = " taken" if candidate.token == considered.token else ""
        label = story.label(candidate.token)
        if width >= 1:
            told = element("title", f"{label} {percent(share)}")
            parts.append(
                element("rect", told, class_=kind + taken, x=x, y=top, width=max(width - 1, 0.5), height=14)
            )
        cells = int((width - 8) / (10 * CELL))
        if cells >= 2 or (cells == 1 and len(label) == 1):
            parts.append(line(x + 4, top + 11, fitted(label, cells), kind=f"inside{taken}"))
        x += width
    return joined(parts)
