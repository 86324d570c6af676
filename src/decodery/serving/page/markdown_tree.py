"""Turns Markdown into a tree of elements, of which the page builds its nodes without any markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

# A text, or an element: its name, its attributes, and its children.
Tree = str | list[Any]

# The elements that need nothing but their children.
_PLAIN = {
    "paragraph": "p",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "blockquote": "blockquote",
    "em": "em",
    "strong": "strong",
}
_BREAKS = {"softbreak": " ", "hardbreak": " "}


def markdown_tree(text: str, target: Callable[[str], str | None], source: Callable[[str], str]) -> list[Tree]:
    """Returns the blocks of a Markdown text; headings are one level lower, below that of the page.

    `target` returns the address of a link, or None where only its text is to be shown; `source` returns that
    of a picture. Raises `ValueError` for Markdown that the page does not know, HTML among it.
    """
    root = SyntaxTreeNode(MarkdownIt("commonmark").parse(text))
    return _all(root, target, source)


def _all(
    node: SyntaxTreeNode, target: Callable[[str], str | None], source: Callable[[str], str]
) -> list[Tree]:
    return [tree for child in node.children for tree in _trees(child, target, source) if tree]


def _trees(
    node: SyntaxTreeNode, target: Callable[[str], str | None], source: Callable[[str], str]
) -> list[Tree]:
    """Returns the trees of one node: several where the node itself is not an element."""
    kind = node.type
    if kind in ("text", "code_inline", "fence", "code_block") or kind in _BREAKS:
        return [_leaf(node)]
    if kind == "image":
        return [["img", {"src": source(str(node.attrs["src"])), "alt": node.content}]]
    children = _all(node, target, source)
    if kind == "inline" or (kind == "paragraph" and node.hidden):
        return children
    if kind == "link":
        address = target(str(node.attrs["href"]))
        return children if address is None else [["a", {"href": address}, *children]]
    if kind == "heading":
        return [[f"h{int(node.tag[1:]) + 1}", {}, *children]]
    if kind not in _PLAIN:
        raise ValueError(f"the page shows no {kind} of Markdown")
    return [[_PLAIN[kind], {}, *children]]


def _leaf(node: SyntaxTreeNode) -> Tree:
    if node.type == "text":
        return node.content
    if node.type in _BREAKS:
        return _BREAKS[node.type]
    code = ["code", {}, node.content.removesuffix("\n")]
    return code if node.type == "code_inline" else ["pre", {"class": node.info or None}, code]
