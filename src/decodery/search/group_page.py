"""Draws groups of texts as one HTML page with a map that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decodery.pictures.markup import Markup, element
from decodery.search.groups import TextGroup
from decodery.version import __version__

SIZE, MARGIN, RADIUS = 800.0, 20.0, 5.0
# Hues that differ by this angle are far from each other, however many there are.
ANGLE = 137.508
LONGEST = 500
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
main { display: flex; flex-wrap: wrap; gap: 2em; }
svg { flex: 1 1 30em; max-width: 50em; border: 1px solid #8888; }
circle { stroke: Canvas; } circle:hover, circle:focus { stroke: CanvasText; stroke-width: 2; }
ol { flex: 1 1 15em; list-style: none; padding: 0; } li { margin: 0 0 0.7em; }
li > span { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 50%; margin-right: 0.5em; }
small { display: block; opacity: 0.75; }
"""


def group_page(
    groups: Sequence[TextGroup], texts: Sequence[str], labels: Sequence[str], places: NDArray[np.float64]
) -> str:
    """Returns the page: a point for each text, whose label and text are shown when it is pointed at.

    `labels` say where the texts are from, and `places` [texts, 2] are from 0 to 1.
    """
    points = [
        element(
            "circle",
            element("title", f"{labels[place]}\n{texts[place][:LONGEST]}"),
            cx=MARGIN + float(places[place, 0]) * (SIZE - 2 * MARGIN),
            cy=MARGIN + float(places[place, 1]) * (SIZE - 2 * MARGIN),
            r=RADIUS,
            fill=_colour(number),
        )
        for number, group in enumerate(groups)
        for place in group.members
    ]
    title = f"{len(texts)} texts in {len(groups)} groups"
    picture = element("svg", points, viewBox=f"0 0 {SIZE:.0f} {SIZE:.0f}", role="img", aria_label=title)
    entries = [_entry(number, group, texts) for number, group in enumerate(groups)]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    note = "Point at a text to read it. Texts with close vectors are near each other."
    footer = element("footer", f"Made by decodery {__version__}")
    main = element("main", picture, element("ol", entries))
    body = element("body", element("h1", title), element("p", note), main, footer)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _entry(number: int, group: TextGroup, texts: Sequence[str]) -> Markup:
    colour = element("span", "", style=f"background: {_colour(number)}")
    name = element("b", ", ".join(group.name) or "(no words)")
    nearest = " ".join(texts[group.members[0]].split())[:LONGEST]
    return element("li", colour, name, f" {len(group.members)}", element("small", nearest))


def _colour(number: int) -> str:
    return f"hsl({number * ANGLE % 360:.0f} 65% 50%)"
