"""Draws which requests run in each step of a batch, and how many tokens of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.pictures.learn.layout import WIDTH, bar, rule, titled_document
from decodery.pictures.markup import joined
from decodery.pictures.svg_sheet import fitted, line

_ROW = 26.0
_LEFT = 190.0
# What a request runs in a step: a number of tokens of its prompt, or a token that was chosen before.
Cell = tuple[int, str]


def step_grid_picture(title: str, requests: Mapping[str, Sequence[Cell | None]]) -> str:
    """Returns the picture of requests by their names, with what each runs in each step; None is nothing."""
    steps = max(map(len, requests.values()))
    column = (WIDTH - _LEFT) / steps
    parts = [line(0, 12, "step", kind="dim small")]
    parts += [
        line(_LEFT + (step + 0.5) * column, 12, str(step + 1), kind="dim small", anchor="middle")
        for step in range(steps)
    ]
    parts.append(rule(18))
    y = 24.0
    for name, cells in requests.items():
        parts.append(line(0, y + 15, fitted(name, 26)))
        for step, cell in enumerate(cells):
            if cell is None:
                continue
            x, (prompt, text) = _LEFT + step * column, cell
            kind = "after taken" if prompt else "model"
            parts.append(bar(x + 1, y, column - 2, kind, height=21))
            shown = f"{prompt} tokens" if prompt else text
            parts.append(line(x + 5, y + 15, fitted(shown, int((column - 8) / 6.1)), kind=f"inside {kind}"))
        y += _ROW
    return titled_document(title, joined(parts), y)
