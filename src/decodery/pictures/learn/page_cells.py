"""Draws the pages of a key/value cache that requests hold, and which of them they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decodery.pictures.learn.layout import bar, titled_document
from decodery.pictures.markup import Markup, joined
from decodery.pictures.svg_sheet import fitted, line

PAGE = 16
_ROW = 18.0
_TOKEN = 11.0
_LEFT = 96.0


def page_cells_picture(title: str, requests: Mapping[str, tuple[Sequence[str], int]]) -> str:
    """Returns the picture of requests by their names: the labels of their tokens, and how many were cached.

    Each row is a page of 16 tokens, with its first tokens as words.
    """
    parts: list[Markup] = []
    y = 0.0
    for name, (labels, cached) in requests.items():
        computed = len(labels) - cached
        parts.append(line(0, y + 12, name, kind="strong"))
        parts.append(
            line(0, y + 28, f"{cached} tokens from the cache, {computed} computed", kind="dim small")
        )
        y += 36
        for start in range(0, len(labels), PAGE):
            held = labels[start : start + PAGE]
            shared = start < cached
            parts.append(line(0, y + 12, f"page {start // PAGE + 1}", kind="dim small"))
            for place in range(PAGE):
                kind = "track" if place >= len(held) else "after taken" if shared else "model"
                parts.append(bar(_LEFT + place * (_TOKEN + 2), y + 2, _TOKEN, kind))
            words = "".join(held).replace("␣", " ").strip()
            parts.append(line(_LEFT + PAGE * (_TOKEN + 2) + 12, y + 13, fitted(words, 58), kind="dim"))
            y += _ROW
        y += 16
    return titled_document(title, joined(parts), y - 16)
