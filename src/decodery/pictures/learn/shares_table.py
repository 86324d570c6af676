"""Draws the probabilities of the next token's candidates under several settings beside each other."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.decoding.trace import Considered
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, bar, rule, titled_document
from decodery.pictures.markup import Markup, joined, percent
from decodery.pictures.svg_sheet import fitted, line

_ROW = 18.0
_LABEL = 116.0
_NUMBER = 48.0
_GAP = 14.0


def shares_picture(title: str, runs: Mapping[str, GenerationTrace], marks: Mapping[int, str]) -> str:
    """Returns the picture of the first choice of each run, by the names of their settings.

    The candidates are those of the first run. `marks` are words that stand behind some of their names.
    """
    first = next(iter(runs.values()))
    choices = [_choice(trace) for trace in runs.values()]
    column = (WIDTH - _LABEL) / len(runs)
    xs = [_LABEL + place * column for place in range(len(runs))]
    parts = [line(x, 14, name, kind="small strong") for x, name in zip(xs, runs, strict=True)]
    parts.append(rule(21))
    y = 26.0
    for candidate in choices[0].candidates:
        token = candidate.token
        label = f"{first.label(token)}{marks.get(token, '')}"
        parts.append(line(0, y + 12, fitted(label, 15)))
        parts += [_cell(x, y, column, choice, token) for x, choice in zip(xs, choices, strict=True)]
        y += _ROW
    return titled_document(title, joined(parts), y)


def _cell(x: float, y: float, column: float, choice: Considered, token: int) -> Markup:
    after = next((c.after for c in choice.candidates if c.token == token), None)
    if after is None:
        return line(x, y + 12, "not among the first", kind="dim small")
    most = column - _NUMBER - _GAP
    kind = "model taken" if token == choice.token else "model"
    return joined(
        [
            bar(x, y + 3, after * most, kind, height=11),
            line(x + after * most + 5, y + 12, percent(after), kind="dim small"),
        ]
    )


def _choice(trace: GenerationTrace) -> Considered:
    return trace.steps[0][0].considered[0]
