"""Draws by which angles a rotary embedding turns pairs of dimensions at each position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decodery.pictures.learn.layout import WIDTH, titled_document
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import line

_ROW = 56.0
_LEFT = 150.0
_RADIUS = 20.0


def rotations_picture(title: str, theta: float, width: int, pairs: Sequence[int], positions: int) -> str:
    """Returns the picture of some pairs of `width` dimensions, with the base `theta`, at the first positions.

    Pair i is turned by position · theta^(-2i/width). Su et al., RoFormer (2021).
    """
    column = (WIDTH - _LEFT) / positions
    parts: list[Markup] = [line(0, 12, "position", kind="dim small")]
    for position in range(positions):
        x = _LEFT + (position + 0.5) * column
        parts.append(line(x, 12, str(position), kind="dim small", anchor="middle"))
    y = 24.0
    for pair in pairs:
        step = theta ** (-2 * pair / width)
        turn = 2 * math.pi / step
        parts.append(line(0, y + 20, f"pair {pair + 1} of {width // 2}", kind="strong"))
        parts.append(line(0, y + 37, f"a turn in {turn:,.0f} tokens", kind="dim small"))
        for position in range(positions):
            parts.append(_hand(_LEFT + (position + 0.5) * column, y + _ROW / 2, position * step))
        y += _ROW
    return titled_document(title, joined(parts), y)


def _hand(x: float, y: float, angle: float) -> Markup:
    tip = x + _RADIUS * math.sin(angle), y - _RADIUS * math.cos(angle)
    return joined(
        [
            element("circle", class_="track", cx=x, cy=y, r=_RADIUS),
            element("line", class_="rule", x1=x, y1=y, x2=tip[0], y2=tip[1]),
            element("circle", class_="model taken", cx=tip[0], cy=tip[1], r=3.5),
        ]
    )
