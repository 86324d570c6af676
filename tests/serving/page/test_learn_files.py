"""Tests what the server answers of the learner's pages: without a key, as trees of known elements."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.learn import learn_page, learn_pages
from decodery.serving.page.markdown_tree import markdown_tree
from tests.serving.page.test_page_files import get

NAMES = [page.name for page in learn_pages()]
ELEMENTS = {"h2", "h3", "p", "ul", "li", "a", "em", "strong", "code", "pre", "img"}


def elements(trees: list[Any]) -> list[list[Any]]:
    """Returns all elements of trees, the outer ones first."""
    found = []
    for tree in trees:
        if isinstance(tree, list):
            found += [tree, *elements(tree[2:])]
    return found


def text_of(trees: list[Any]) -> str:
    return "".join(tree if isinstance(tree, str) else text_of(tree[2:]) for tree in trees)


def test_the_list_has_every_page() -> None:
    listed = get("/assets/learn/index.json").json()
    assert [page["name"] for page in listed] == NAMES
    assert all(page.keys() == {"name", "title", "summary"} for page in listed)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_a_tree_of_known_elements_with_known_links(name: str) -> None:
    page = get(f"/assets/learn/{name}.json").json()
    assert page["run"] == dict(learn_page(name).run)
    found = elements(page["blocks"])
    assert {element[0] for element in found} <= ELEMENTS
    assert page["blocks"][0][0] == "h2"
    assert page["title"] == learn_page(name).title
    for _, attributes, *_ in (element for element in found if element[0] == "a"):
        link = attributes["href"]
        assert link.startswith("https://") or link.removeprefix("#learn/") in NAMES
    assert [element[1]["src"] for element in found if element[0] == "img"] == [f"assets/learn/{name}.svg"]
    # The page has its own button.
    assert "127.0.0.1" not in str(page)
    assert "Try it" not in text_of(page["blocks"])


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_may_use_its_own_style_and_nothing_else(name: str) -> None:
    answer = get(f"/assets/learn/{name}.svg")
    assert answer.content == learn_page(name).picture.read_bytes()
    assert answer.headers["content-type"] == "image/svg+xml"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox" in policy


def test_a_page_that_is_not_there_is_not_found() -> None:
    assert get("/assets/learn/other.json").status_code == 404


def tree(text: str) -> list[Any]:
    return markdown_tree(text, lambda link: None if link.startswith("x") else link, lambda path: path)


def test_markdown_becomes_a_tree() -> None:
    assert tree("# A *b*\n\n- c\n- **d**\n") == [
        ["h2", {}, "A ", ["em", {}, "b"]],
        ["ul", {}, ["li", {}, "c"], ["li", {}, ["strong", {}, "d"]]],
    ]
    assert tree("a\nb `c<d` [e](#f) [g](xh)") == [
        ["p", {}, "a", " ", "b ", ["code", {}, "c<d"], " ", ["a", {"href": "#f"}, "e"], " ", "g"]
    ]
    assert tree("```python\nf(<b>)\n```\n") == [["pre", {"class": "python"}, ["code", {}, "f(<b>)"]]]
    assert tree("![a & b](c.svg)") == [["p", {}, ["img", {"src": "c.svg", "alt": "a & b"}]]]


@pytest.mark.parametrize("text", ["<b>x</b>", "x <script>", "<!-- c -->", "---"])
def test_what_the_page_does_not_show_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="the page shows no"):
        tree(text)
