"""Draws texts as the pieces that a tokenizer divides them into, each with its number."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.pictures.learn.layout import WIDTH, rule, titled_document
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import CELL, line
from decodery.text.tokenizer.tokenizer import Tokenizer

_BIG = 14 * CELL
_ROW = 46.0
_LEFT = 190.0


def pieces_picture(tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """Returns the picture: each text, and the pieces and token ids that it becomes."""
    parts = [
        line(0, 12, "text", kind="dim small"),
        line(_LEFT, 12, "pieces, with the number of each token below; ␣ is a space", kind="dim small"),
        line(WIDTH, 12, "tokens", kind="dim small", anchor="end"),
        rule(18),
    ]
    y = 28.0
    for text in texts:
        parts.append(_row(tokenizer, text, y))
        y += _ROW
    return titled_document("Texts and their tokens", joined(parts), y - 8)


def _row(tokenizer: Tokenizer, text: str, y: float) -> Markup:
    ids = tokenizer.encode(text)
    shown = text.replace(" ", "\u00a0")
    parts = [line(0, y + 16, shown), line(WIDTH, y + 16, str(len(ids)), kind="strong", anchor="end")]
    x = _LEFT
    for place, token in enumerate(ids):
        label = tokenizer.token_label(token)
        width = max(len(label) * _BIG, len(str(token)) * 10 * CELL) + 10
        kind = "piece even" if place % 2 == 0 else "piece odd"
        parts.append(element("rect", class_=kind, x=x, y=y, width=width, height=23, rx=5))
        parts.append(line(x + width / 2, y + 16, label, kind="large", anchor="middle"))
        parts.append(line(x + width / 2, y + 35, str(token), kind="dim small", anchor="middle"))
        x += width + 3
    return joined(parts)
