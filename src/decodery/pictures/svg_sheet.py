"""A static SVG picture: its frame, its heading, and lines of text that fit."""

from __future__ import annotations

import textwrap
from importlib.resources import files

from rich.cells import cell_len, set_cell_size

from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined

MARGIN = 24.0
LINE = 18.0
# A monospace font's cell, in ems.
CELL = 0.602


def style(name: str) -> Markup:
    """A stylesheet or script that lies beside this file, which holds nothing of a model's."""
    return Markup(files("decodery.pictures").joinpath(name).read_text(encoding="utf-8"))


def fitted(text: str, cells: int) -> str:
    """The text, cut to so many cells, with an ellipsis where it was cut."""
    return text if cell_len(text) <= cells else set_cell_size(text, max(cells - 1, 0)).rstrip() + "…"


def line(x: float, y: float, text: str, *, kind: str | None = None, anchor: str | None = None) -> Markup:
    """A line of text whose baseline is at y."""
    return element("text", text, x=x, y=y, class_=kind, text_anchor=anchor)


def heading(story: GenerationTrace, width: float) -> tuple[Markup, float]:
    """What was asked, and how tall that is."""
    cells = int((width - 2 * MARGIN) / (12 * CELL))
    said = [
        *textwrap.wrap(" ".join(story.prompt.split()), cells)[:4],
    ]
    settings = ", ".join(f"{name}={value}" for name, value in story.settings()) or "default parameters"
    seed = "" if story.output is None else f"   seed {story.output.seed}"
    facts = textwrap.wrap(f"{story.model}   {settings}{seed}", cells)[:3]
    y = MARGIN + 10
    parts = []
    for place, text in enumerate(said):
        parts.append(line(MARGIN, y, text, kind="title" if place == 0 and len(said) == 1 else "strong"))
        y += LINE
    for text in facts:
        parts.append(line(MARGIN, y, text, kind="dim"))
        y += LINE
    return joined(parts), y


def sheet(body: Markup, width: float, height: float, title: str) -> Markup:
    """A whole SVG document."""
    return element(
        "svg",
        element("title", title),
        element("style", style("svg.css")),
        element("rect", class_="paper", width=width, height=height),
        body,
        xmlns="http://www.w3.org/2000/svg",
        class_="sheet",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
    )
