"""Draws a trace as one static SVG document."""

from __future__ import annotations

from decodery.pictures.beam_tree import build_tree
from decodery.pictures.beam_tree_svg import WIDTH as TREE_WIDTH
from decodery.pictures.beam_tree_svg import tree_svg
from decodery.pictures.choices_svg import WIDTH as CHOICES_WIDTH
from decodery.pictures.choices_svg import choices_svg
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import LINE, MARGIN, fitted, heading, line, sheet


def svg_picture(trace: GenerationTrace) -> str:
    """Returns the SVG document: the tree of a beam search, otherwise the choices of each completion."""
    if trace.beams:
        body, height = tree_svg(build_tree(trace.beams, trace.completions), trace)
        width = TREE_WIDTH + 2 * MARGIN
    else:
        body, height = choices_svg(trace)
        width = CHOICES_WIDTH + 2 * MARGIN
    top, used = heading(trace, width)
    texts, more = _texts(trace, used + height + 8) if trace.beams else (Markup(""), 0.0)
    moved = element("g", body, transform=f"translate({MARGIN:.0f} {used:.0f})")
    return str(sheet(joined([top, moved, texts]), width, used + height + more + MARGIN, trace.prompt)) + "\n"


def _texts(trace: GenerationTrace, top: float) -> tuple[Markup, float]:
    """Draws the text and score of each completion below `top`; returns them and their height."""
    lines = []
    for place, completion in enumerate(trace.completions, 1):
        score = "" if completion.score is None else f"  {completion.score:.3f}"
        text = fitted(f"★{place}{score}  {' '.join(completion.text.split())}", 150)
        lines.append(line(MARGIN, top + place * LINE, text))
    return joined(lines), LINE * len(lines) + 12
