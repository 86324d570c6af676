"""Writes what the pictures of the learner's pages have in common: the document, columns and bars."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import CELL, LINE, MARGIN, fitted, line, sheet

# The width of the drawing between the margins.
WIDTH = 760.0


def document(trace: GenerationTrace, body: Markup, height: float) -> str:
    """Returns the SVG document of a drawing, under a heading with the trace's prompt and parameters."""
    settings = ", ".join(f"{name}={value}" for name, value in trace.settings())
    lines = textwrap.wrap(settings, int(WIDTH / (12 * CELL)))
    top = [line(MARGIN, MARGIN + 10, " ".join(trace.prompt.split()), kind="title")]
    top += [line(MARGIN, MARGIN + 10 + k * LINE, text, kind="dim") for k, text in enumerate(lines, 1)]
    used = MARGIN + 28 + LINE * len(lines)
    return _document(joined([*top, _moved(body, used)]), used + height, trace.prompt)


def titled_document(title: str, body: Markup, height: float) -> str:
    """Returns the SVG document of a drawing of several runs, under a title."""
    top = line(MARGIN, MARGIN + 10, title, kind="title")
    used = MARGIN + 28
    return _document(joined([top, _moved(body, used)]), used + height, title)


def _moved(body: Markup, top: float) -> Markup:
    return element("g", body, transform=f"translate({MARGIN:.0f} {top:.0f})")


def _document(body: Markup, height: float, title: str) -> str:
    return str(sheet(body, WIDTH + 2 * MARGIN, height + MARGIN, title)) + "\n"


def rule(y: float, left: float = 0.0, right: float = WIDTH) -> Markup:
    """Returns a thin horizontal line."""
    return element("line", class_="rule", x1=left, x2=right, y1=y + 0.5, y2=y + 0.5)


def bar(x: float, y: float, width: float, kind: str, *, height: float = 14.0) -> Markup:
    """Returns a bar with its upper left corner at (x, y)."""
    return element("rect", class_=kind, x=x, y=y, width=max(width, 0.5), height=height, rx=2)


def stacked(
    shares: Sequence[float],
    labels: Sequence[str],
    kinds: Sequence[str],
    left: float,
    top: float,
    width: float,
) -> Markup:
    """Returns parts of a bar side by side, each as wide as its share of `width` and with its label inside.

    The rest of the bar is empty. A kind is a CSS class, or several.
    """
    parts = [bar(left, top, width, "track")]
    x = left
    for share, label, kind in zip(shares, labels, kinds, strict=True):
        part = share * width
        if part >= 1:
            parts.append(bar(x, top, part - 1, kind))
        cells = int((part - 6) / (10 * CELL))
        if cells >= 2 or (cells == 1 and len(label) == 1):
            parts.append(line(x + 4, top + 11, fitted(label, cells), kind=f"inside {kind}"))
        x += part
    return joined(parts)
