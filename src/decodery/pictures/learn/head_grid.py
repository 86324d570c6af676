"""Draws how the heads of one layer divide the attention of a text's last token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decodery.lens.layer_views import LayerViews
from decodery.pictures.learn.layout import WIDTH, rule, titled_document
from decodery.pictures.markup import Markup, element, joined, percent
from decodery.pictures.svg_sheet import fitted, line

_LABEL = 70.0
_ROW = 24.0
# A share below this is drawn without its number.
_LEAST_NUMBERED = 0.05


def head_grid_picture(views: LayerViews, layer: int, labels: Sequence[str]) -> str:
    """Returns the picture: a row for each head of a layer (from 1), and a column for each token."""
    attention = views.layers[layer - 1].attention
    column = (WIDTH - _LABEL) / len(labels)
    xs = [_LABEL + place * column for place in range(len(labels))]
    parts = [
        line(x + column / 2, 12, fitted(label, 12), kind="strong", anchor="middle")
        for x, label in zip(xs, labels, strict=True)
    ]
    parts.append(rule(18))
    y = 24.0
    for head, shares in enumerate(attention, 1):
        parts.append(line(0, y + 15, f"head {head}"))
        parts += [_cell(x, y, column, float(share)) for x, share in zip(xs, shares, strict=True)]
        y += _ROW
    title = f"Layer {layer} reads “{labels[-1]}”: how its heads divide their attention"
    return titled_document(title, joined(parts), y)


def _cell(x: float, y: float, width: float, share: float) -> Markup:
    # By the root, so that small shares can be seen too.
    strength = round(math.sqrt(share), 2)
    shade = element(
        "rect",
        class_="model taken",
        x=x + 1,
        y=y,
        width=width - 2,
        height=_ROW - 3,
        rx=3,
        fill_opacity=strength,
    )
    if share < _LEAST_NUMBERED:
        return shade
    return joined([shade, line(x + width / 2, y + 14, percent(share), kind="small", anchor="middle")])
