"""Draws the tokens of texts, with some of them marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.pictures.learn.layout import WIDTH, titled_document
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import CELL, line

_CELL = 12 * CELL
_LINE = 22.0


def marked_tokens_picture(title: str, texts: Mapping[str, Sequence[tuple[str, bool]]]) -> str:
    """Returns the picture of texts by their headings: the labels of tokens, and whether each is marked."""
    parts: list[Markup] = []
    y = 0.0
    for heading, tokens in texts.items():
        parts.append(line(0, y + 14, heading, kind="strong"))
        y += _LINE
        x = 0.0
        for label, marked in tokens:
            shown = label.replace("␣", "\u00a0")
            width = len(shown) * _CELL + 4
            if x + width > WIDTH:
                x, y = 0.0, y + _LINE
            kind = "piece right" if marked else "piece"
            parts.append(element("rect", class_=kind, x=x, y=y + 2, width=width - 2, height=18, rx=3))
            parts.append(line(x + 1, y + 15, shown))
            x += width
        y += _LINE + 14
    return titled_document(title, joined(parts), y - 14)
