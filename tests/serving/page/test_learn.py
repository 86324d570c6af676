"""Tests the view with the learner's pages in a browser."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.learn import learn_page, learn_pages
from tests.serving.live import LiveServer

NAMES = [page.name for page in learn_pages()]


@pytest.mark.page
def test_the_list_leads_to_each_page_and_each_page_to_its_neighbours(page: Any, server: LiveServer) -> None:
    page.goto(f"{server.url}/#learn")
    page.wait_for_selector(".learn-list a")
    links = page.locator(".learn-list a")
    assert [link.get_attribute("href") for link in links.all()] == [f"#learn/{name}" for name in NAMES]
    links.first.click()
    for name in NAMES:
        page.get_by_role("heading", level=2, name=learn_page(name).title).wait_for()
        assert page.evaluate("location.hash") == f"#learn/{name}"
        if name != NAMES[-1]:
            page.locator(".learn-next a").last.click()
    assert page.locator(".learn-next a").count() == 1
    page.go_back()
    page.get_by_role("heading", level=2, name=learn_page(NAMES[-2]).title).wait_for()


def test_a_page_shows_its_text_its_code_and_its_picture(page: Any, server: LiveServer) -> None:
    page.goto(f"{server.url}/#learn/truncation")
    picture = page.locator(".picture img")
    picture.wait_for()
    page.wait_for_function("document.querySelector('.picture img')?.naturalWidth > 700")
    assert "Two prompts" in picture.get_attribute("alt")
    assert "from decodery import LLM" in page.locator("pre.python").inner_text()
    assert page.locator("pre.console").inner_text().startswith("$ decodery generate")
    outside = page.locator("article a[href^=https]")
    assert outside.count() >= 5
    assert {a.get_attribute("rel") for a in outside.all()} == {"noopener noreferrer"}
    assert page.locator("article p a[href='#learn/sampling']").count() == 1


def test_try_it_writes_with_the_pages_prompt_and_parameters_at_once(page: Any, server: LiveServer) -> None:
    asked: list[Any] = []
    page.on(
        "request",
        lambda r: asked.append(r.post_data_json) if r.url.endswith("/trace") and r.method == "POST" else None,
    )
    page.goto(f"{server.url}/#learn/greedy")
    page.get_by_role("button", name="Try it").click()
    page.wait_for_selector("#view-write [data-state=done]")
    assert page.evaluate("location.hash") == "#write"
    run = learn_page("greedy").run
    [request] = asked[-1]["requests"]
    assert request["prompt"] == run["prompt"]
    assert run["params"].items() <= request["params"].items()


@pytest.mark.page
def test_try_it_shows_the_layers_of_a_text(page: Any, server: LiveServer) -> None:
    page.goto(f"{server.url}/#learn/block")
    page.get_by_role("button", name="Try it").click()
    page.wait_for_selector(".layers-result[data-state=done]")
    text = learn_page("block").run["layers"]
    assert page.evaluate("location.hash") == "#layers"
    assert page.locator("#layers-text").input_value() == text
    assert page.locator("#view-layers .token.open").get_attribute("data-i") == str(len(text) - 1)


@pytest.mark.page
def test_the_pages_are_read_and_tried_with_the_keyboard_alone(page: Any, server: LiveServer) -> None:
    page.goto(f"{server.url}/#learn")
    page.wait_for_selector(".learn-list a")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=2, name=learn_page(NAMES[0]).title).wait_for()
    # The focus is on the heading; the button stands before it.
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "Try it"


@pytest.mark.page
def test_an_answer_that_comes_after_a_later_one_is_dropped(page: Any, server: LiveServer) -> None:
    page.goto(f"{server.url}/#learn")
    page.wait_for_selector(".learn-list a")
    held: list[Any] = []
    page.route("**/learn/greedy.json", lambda route: held.append(route))
    with page.expect_request("**/learn/greedy.json"):
        page.evaluate("location.hash = '#learn/greedy'")
    page.evaluate("location.hash = '#learn/grammars'")
    page.get_by_role("heading", level=2, name="Grammars").wait_for()
    with page.expect_response("**/learn/greedy.json") as answer:
        held[0].continue_()
    answer.value.finished()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert page.locator("article h2").inner_text() == "Grammars"


@pytest.mark.page
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["learn", "learn/sampling", "learn/grammars"])
def test_axe_finds_no_fault(page: Any, server: LiveServer, path: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{server.url}/#{path}")
    page.wait_for_selector(".learn h2")
    found = axe.run(page, context="#view-learn").response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.mark.page
@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_phone(page: Any, server: LiveServer, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(f"{server.url}/#learn/{name}")
    page.wait_for_selector("article h2")
    view = "document.querySelector('#view-learn')"
    assert page.evaluate(f"{view}.scrollWidth <= {view}.clientWidth")
