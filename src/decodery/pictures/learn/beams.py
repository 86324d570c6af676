"""Draws the tree of a short beam search, with the best of the candidates that each step dropped."""

from __future__ import annotations

from decodery.pictures.beam_tree import build_tree
from decodery.pictures.beam_tree_svg import COLUMN, LEFT, tree_svg
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.layout import WIDTH, document

_COLUMNS = int((WIDTH - LEFT) / COLUMN)
_DROPPED = 4


def beams_picture(trace: GenerationTrace) -> str:
    """Returns the picture of the search."""
    tree = build_tree(trace.beams, trace.completions)
    body, height = tree_svg(tree, trace, columns=_COLUMNS, others=_DROPPED)
    return document(trace, body, height)
