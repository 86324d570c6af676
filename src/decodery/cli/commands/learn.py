"""Implements `decodery learn`: shows the learner's pages in the terminal."""

from __future__ import annotations

import re
import sys

from rich.console import Console
from rich.markdown import Markdown

from decodery.cli.terminal import aligned, emit
from decodery.learn import learn_page, learn_pages

_WIDEST = 100
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_LINK_TO_FILE = re.compile(r"\[([^\]]*)\]\([^):]*\)")


def learn(method: str | None) -> None:
    """Prints the page of a method, formatted on a terminal and as Markdown elsewhere; without one, a list.

    Raises `ParameterError` for a method without a page.
    """
    if method is None:
        emit(aligned([(page.name, page.summary) for page in learn_pages()]))
        return
    page = learn_page(method)
    if not sys.stdout.isatty():
        emit(page.text)
        return
    console = Console(highlight=False)
    # A terminal shows the description of the picture and its place, and of links only those to other sites.
    text = _PICTURE.sub(lambda found: f"*Picture: {found[1]}* `{page.picture}`", page.text)
    text = _LINK_TO_FILE.sub(r"\1", text)
    console.print(Markdown(text, hyperlinks=False), width=min(console.width, _WIDEST))
