"""Draws which candidates each rule of truncation keeps, for several prompts below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.decoding.trace import Considered
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, bar, rule, titled_document
from decodery.pictures.markup import Markup, element, joined, percent
from decodery.pictures.svg_sheet import fitted, line

_ROW = 18.0
_LABEL = 96.0
_BAR = 190.0
_RULES = _LABEL + _BAR + 74.0


def truncation_picture(prompts: Sequence[Mapping[str, GenerationTrace]]) -> str:
    """Returns the picture: for each prompt a run by each rule, by the rules' names."""
    parts: list[Markup] = []
    y = 0.0
    for runs in prompts:
        table, height = _table(runs)
        parts.append(element("g", table, transform=f"translate(0 {y:.0f})"))
        y += height + 22
    return titled_document("Which candidates are left?", joined(parts), y - 12)


def _table(runs: Mapping[str, GenerationTrace]) -> tuple[Markup, float]:
    first = next(iter(runs.values()))
    choices = [_choice(trace) for trace in runs.values()]
    column = (WIDTH - _RULES) / len(runs)
    xs = [_RULES + (place + 0.5) * column for place in range(len(runs))]
    parts = [line(0, 14, f"{first.prompt} …", kind="strong")]
    parts += [line(x, 14, name, kind="small", anchor="middle") for x, name in zip(xs, runs, strict=True)]
    parts.append(rule(21))
    y = 26.0
    candidates = choices[0].candidates
    for place, candidate in enumerate(candidates):
        share = candidate.before
        left = [c.candidates[place].after > 0 for c in choices]
        kind = "model taken" if any(left) else "model"
        parts.append(line(0, y + 12, fitted(first.label(candidate.token), 12)))
        parts.append(bar(_LABEL, y + 3, share / candidates[0].before * _BAR, kind, height=11))
        parts.append(line(_LABEL + _BAR + 56, y + 12, percent(share), kind="dim small", anchor="end"))
        for x, kept in zip(xs, left, strict=True):
            parts.append(_mark(x, y + 8, kept=kept))
        y += _ROW
    parts.append(line(0, y + 12, f"and {_size(first) - len(candidates):,} more", kind="dim small"))
    parts += [
        line(x, y + 12, f"{choice.kept:,} kept", kind="small strong", anchor="middle")
        for x, choice in zip(xs, choices, strict=True)
    ]
    return joined(parts), y + _ROW


def _choice(trace: GenerationTrace) -> Considered:
    return trace.steps[0][0].considered[0]


def _size(trace: GenerationTrace) -> int:
    return trace.tokenizer.vocab_size


def _mark(x: float, y: float, *, kept: bool) -> Markup:
    if kept:
        return element("circle", class_="after taken", cx=x, cy=y, r=5)
    return element("circle", class_="track", cx=x, cy=y, r=3)
