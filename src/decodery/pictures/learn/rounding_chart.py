"""Draws a block of weights between the levels that a quantisation has for them."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.pictures.learn.layout import WIDTH, rule, titled_document
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import line

_LEVEL = 11.0
_LEFT = 60.0


def rounding_picture(title: str, weights: Sequence[float], bits: int) -> str:
    """Returns the picture of the weights as circles and of the levels that they are rounded to as dots.

    The levels are 2^bits evenly spaced numbers from the least weight to the largest.
    """
    low, high = min(weights), max(weights)
    top = 2**bits - 1
    step = (high - low) / top
    column = (WIDTH - _LEFT) / len(weights)
    parts: list[Markup] = []
    for level in range(top + 1):
        y = 10 + (top - level) * _LEVEL
        parts.append(rule(y, _LEFT))
        if level % 5 == 0:
            parts.append(line(_LEFT - 8, y + 4, f"{low + level * step:.3f}", kind="dim small", anchor="end"))
    for place, weight in enumerate(weights):
        x = _LEFT + (place + 0.5) * column
        exact = (weight - low) / step
        code = round(exact)
        parts.append(element("circle", class_="model taken", cx=x, cy=10 + (top - code) * _LEVEL + 0.5, r=4))
        parts.append(element("circle", class_="after", cx=x, cy=10 + (top - exact) * _LEVEL + 0.5, r=3))
        parts.append(line(x, 34 + top * _LEVEL, str(code), kind="dim small", anchor="middle"))
    parts.append(line(_LEFT - 8, 34 + top * _LEVEL, "code", kind="dim small", anchor="end"))
    return titled_document(title, joined(parts), 44 + top * _LEVEL)
