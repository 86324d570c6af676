"""Tests the view of the layers in a browser, against the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decodery import LLM
from decodery.lens.layer_views import LayerViews
from tests.serving.live import LiveServer
from tests.serving.page.test_inspector import near

TEXT = "abab é it"
DONE = ".layers-result[data-state=done]"


@pytest.fixture
def view(page: Any, server: LiveServer) -> Any:
    page.goto(f"{server.url}/#layers")
    page.locator(DONE).wait_for()
    return page


def look(view: Any, text: str) -> None:
    view.get_by_label("Text", exact=True).fill(text)
    view.get_by_role("button", name="Look", exact=True).click()
    view.locator("#view-layers .token").nth(len(text.encode()) - 1).wait_for(state="attached")


def told(view: Any) -> dict[str, Any]:
    """Returns what the view shows, once it has been told of the chosen token and layer."""
    view.wait_for_timeout(200)
    view.locator(DONE).wait_for()
    found: dict[str, Any] = view.evaluate(
        """() => {
          const place = document.querySelector("#view-layers");
          const all = (selector, within = place) => [...within.querySelectorAll(selector)];
          const texts = (...which) => all(...which).map((one) => one.textContent.trim());
          const rows = all(".predictions tbody tr");
          return {
            layer: place.querySelector("output").textContent,
            titles: all(".token").map((token) => token.title),
            coloured: all(".token").map((token) => token.style.background !== ""),
            heads: all(".heads tbody tr").map((row) => texts(".named .number", row)),
            chosen: all(".heads input").findIndex((input) => input.checked),
            predicted: rows.map((row) => texts("td", row)),
            shown: rows.findIndex((row) => row.classList.contains("shown")),
            final: texts(".predictions tr:last-child .final").length,
          };
        }"""
    )
    return found


def check(found: dict[str, Any], views: LayerViews, layer: int, head: int | None) -> None:
    """Checks what is shown against the library's views."""
    attention = views.layers[layer - 1].attention
    assert found["layer"] == f"Layer {layer} of {len(views.layers)}"
    for shown, shares in zip(found["heads"], attention, strict=True):
        best = sorted(shares.tolist(), reverse=True)[:3]
        assert all(near(text, share) for text, share in zip(shown, best, strict=True))
    given = attention.mean(0) if head is None else attention[head]
    count = len(views.token_ids)
    assert all(near(text, share) for text, share in zip(found["titles"], given.tolist(), strict=False))
    assert found["coloured"] == [place < count for place in range(len(found["coloured"]))]
    expected = [views.embedding, *(one.predicted for one in views.layers)]
    assert len(found["predicted"]) == len(expected)
    for cells, tokens in zip(found["predicted"], expected, strict=True):
        assert all(
            near(" ".join(cell.split()[-2:]), share) for cell, (_, share) in zip(cells, tokens, strict=False)
        )
    assert found["shown"] == layer
    assert found["final"] == 1


def head_that_looks_back(attention: Any) -> int:
    return int(np.argmax([max([0, *row[1:-2]]) for row in attention]))


def test_a_token_of_a_text_is_shown_as_the_library_sees_it(view: Any, library: LLM) -> None:
    look(view, TEXT)
    ids = library.tokenizer.encode(TEXT)
    depth = library.model.depth
    first = max(1, round(depth * 0.45))
    found = told(view)
    check(found, library.layer_views(ids), first, found["chosen"])
    # Another layer, another token, another head, and all heads together.
    view.locator(f"[data-layer='{depth}']").click()
    check(told(view), library.layer_views(ids), depth, found["chosen"])
    view.locator("#view-layers .token").nth(2).click()
    check(told(view), library.layer_views(ids[:3]), depth, found["chosen"])
    view.locator(".heads input").nth(1).check()
    check(told(view), library.layer_views(ids[:3]), depth, 1)
    view.get_by_role("button", name="Mean of the heads").click()
    check(told(view), library.layer_views(ids[:3]), depth, None)
    assert view.get_by_role("button", name="Mean of the heads").get_attribute("aria-pressed") == "true"


@pytest.mark.page
def test_the_head_that_is_shown_first_looks_back_most(view: Any, library: LLM) -> None:
    found = told(view)
    text = "The cat sat on the mat because it was tired."
    attention = library.layer_views(text).layers[found["shown"] - 1].attention
    assert found["chosen"] == head_that_looks_back(attention)


@pytest.mark.page
def test_keys_alone_choose_token_and_layer(view: Any, library: LLM) -> None:
    look(view, TEXT)
    told(view)
    view.locator("#view-layers .token").last.focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        view.keyboard.press(key)
    slider = view.get_by_label("Layer", exact=True)
    slider.focus()
    view.keyboard.press("End")
    found = told(view)
    ids = library.tokenizer.encode(TEXT)
    check(found, library.layer_views(ids[:4]), library.model.depth, found["chosen"])
    view.keyboard.press("Home")
    found = told(view)
    check(found, library.layer_views(ids[:4]), 1, found["chosen"])


@pytest.mark.page
def test_a_slider_that_moves_asks_once_and_what_is_known_is_not_asked_again(view: Any) -> None:
    look(view, TEXT)
    told(view)
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    slider = view.get_by_label("Layer", exact=True)
    slider.focus()
    for key in ("Home", "End", "Home", "End"):
        view.keyboard.press(key)
    told(view)
    assert len([url for url in asked if url.endswith("/trace/layers")]) == 1
    view.keyboard.press("Home")
    told(view)
    view.keyboard.press("End")
    told(view)
    assert len([url for url in asked if url.endswith("/trace/layers")]) <= 2


@pytest.mark.page
def test_a_token_of_a_written_text_is_looked_at_by_its_ids(opened: Any, library: LLM) -> None:
    opened.locator("#log .token").nth(7).click()
    opened.get_by_role("button", name="Look into the layers").click()
    opened.locator(DONE).wait_for()
    found = told(opened)
    run = opened.evaluate(
        """async () => {
          const { Store } = await import("/assets/core/store.js");
          const [run] = await new Store().load();
          return [...run.promptTokenIds, ...run.streams[0].tokens];
        }"""
    )
    count = len(library.tokenizer.encode("Once upon a time")) + 8
    assert found["coloured"].index(False) == count
    check(found, library.layer_views(run[:count]), found["shown"], found["chosen"])


@pytest.mark.page
def test_hostile_and_long_texts_are_shown_as_text_and_cut(view: Any) -> None:
    look(view, "<img src=x onerror=alert(1)>\u202e\u200b")
    told(view)
    assert view.locator("#view-layers img").count() == 0
    view.get_by_label("Text", exact=True).fill("a" * 3000)
    view.get_by_role("button", name="Look", exact=True).click()
    view.get_by_text("Only the first 512 tokens are read.").wait_for()
    found = told(view)
    assert len(found["titles"]) == 512


@pytest.mark.page
def test_a_text_that_cannot_be_read_is_told_and_the_next_one_is_shown(view: Any) -> None:
    view.get_by_label("Text", exact=True).fill("")
    view.get_by_role("button", name="Look", exact=True).click()
    view.locator("#view-layers .wrong").wait_for()
    assert "Write a text first" in view.locator("#view-layers .wrong").inner_text()
    look(view, TEXT)
    told(view)
    assert view.locator("#view-layers .wrong").is_hidden()


@pytest.mark.page
def test_a_phone_has_nothing_beside_the_page(view: Any) -> None:
    view.set_viewport_size({"width": 360, "height": 740})
    told(view)
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 360


@pytest.mark.page
def test_axe_finds_no_fault(view: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    look(view, TEXT)
    told(view)
    for scheme in ("light", "dark"):
        view.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(view)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
