"""Writes the parts of a static SVG picture: the document, its heading, and lines of text."""

from __future__ import annotations

import textwrap
from importlib.resources import files

from rich.cells import cell_len, set_cell_size

from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined

MARGIN = 24.0
LINE = 18.0
# The width of a character of a monospace font, in ems.
CELL = 0.602


def asset(name: str) -> Markup:
    """Reads a stylesheet or script of this package; it is not escaped, since it holds no text of a model."""
    return Markup(files("decodery.pictures").joinpath(name).read_text(encoding="utf-8"))


def fitted(text: str, cells: int) -> str:
    """Returns the text, cut to at most `cells` terminal cells; an ellipsis marks the cut."""
    return text if cell_len(text) <= cells else set_cell_size(text, max(cells - 1, 0)).rstrip() + "…"


def line(x: float, y: float, text: str, *, kind: str | None = None, anchor: str | None = None) -> Markup:
    """Returns a line of text whose baseline is at `y`."""
    return element("text", text, x=x, y=y, class_=kind, text_anchor=anchor)


def heading(trace: GenerationTrace, width: float) -> tuple[Markup, float]:
    """Draws the prompt, the model and the parameters; returns them and the y of their lower edge."""
    cells = int((width - 2 * MARGIN) / (12 * CELL))
    prompt = textwrap.wrap(" ".join(trace.prompt.split()), cells)[:4]
    settings = ", ".join(f"{name}={value}" for name, value in trace.settings()) or "default parameters"
    seed = "" if trace.output is None else f"   seed {trace.output.seed}"
    facts = textwrap.wrap(f"{trace.model}   {settings}{seed}", cells)[:3]
    y = MARGIN + 10
    parts = []
    for text in prompt:
        parts.append(line(MARGIN, y, text, kind="title" if len(prompt) == 1 else "strong"))
        y += LINE
    for text in facts:
        parts.append(line(MARGIN, y, text, kind="dim"))
        y += LINE
    return joined(parts), y


def sheet(body: Markup, width: float, height: float, title: str) -> Markup:
    """Returns a whole SVG document."""
    return element(
        "svg",
        element("title", title),
        element("style", asset("svg.css")),
        element("rect", class_="paper", width=width, height=height),
        body,
        xmlns="http://www.w3.org/2000/svg",
        class_="sheet",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
    )
