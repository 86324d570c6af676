"""Answers with the learner's pages: their list, each page as a tree of elements, and the pictures."""

from __future__ import annotations

import json
import re
from typing import Any

from decodery.learn import LearnPage, learn_pages
from decodery.serving.page.markdown_tree import markdown_tree
from decodery.serving.page.page_files import Handler, StaticFile

FOLDER = "/assets/learn"
# Where a page's Markdown leads to itself in a running server.
_TRY = re.compile(r"^\[Try it\]\(http://127\.0\.0\.1:8000/#learn/[^\n]*\n(?:[^\n]+\n)*", re.MULTILINE)
# A picture needs its own stylesheet, and nothing else.
_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"


def learn_handlers() -> list[tuple[str, str, Handler]]:
    """Returns the routes: method, path and handler. The pages are read here, once."""
    pages = learn_pages()
    index = [{"name": page.name, "title": page.title, "summary": page.summary} for page in pages]
    found = {f"{FOLDER}/index.json": _json(index)}
    for page in pages:
        found[f"{FOLDER}/{page.name}.json"] = _json(_content(page))
        picture = page.picture.read_bytes()
        found[f"{FOLDER}/{page.name}.svg"] = StaticFile(picture, ".svg", _PICTURE_POLICY)
    return [("GET", path, handler) for path, handler in found.items()]


def _json(value: Any) -> StaticFile:
    return StaticFile(json.dumps(value, ensure_ascii=False).encode(), ".json")


def _content(page: LearnPage) -> dict[str, Any]:
    """Returns what the view shows of a page. Its own button takes the place of the link to try it."""
    text = _TRY.sub("", page.text)
    return {"title": page.title, "run": page.run, "blocks": markdown_tree(text, _target, _source)}


def _target(link: str) -> str | None:
    """Returns where a link leads within the page; files of the documentation are not served."""
    if link.startswith("https://"):
        return link
    return f"#learn/{link.removesuffix('.md')}" if re.fullmatch(r"[\w-]+\.md", link) else None


def _source(picture: str) -> str:
    # A relative path, so that a proxy may serve the page below a path of its own.
    return f"{FOLDER.removeprefix('/')}/{picture}"
