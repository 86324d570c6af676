"""Tests that axe-core finds nothing in any view, in light and dark, wide and narrow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from decodery.serving.page.page_files import ASSETS
from tests.serving.live import LiveServer

VIEWS = re.findall(r'name: "(\w+)"', (ASSETS / "core" / "views.js").read_text(encoding="utf-8"))
# What each view shows once it has all that it begins with.
FILLED = {
    "write": ".run[data-state=done]",
    "compare": ".column:nth-child(2)",
    "layers": ".predictions tbody tr",
    "surprise": ".surprise-text",
    "prompt": "td[data-logprob]",
    "vote": ".setting:nth-child(2)",
    "tokens": "[data-state=done]",
    "learn": ".learn-list a",
}
SIZES = {"wide": (1280, 800), "narrow": (360, 740)}


def faults(page: Any) -> list[str]:
    """Returns what axe-core finds, with the elements."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]


@pytest.mark.page
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_no_fault(page: Any, server: LiveServer, scheme: str, size: str) -> None:
    width, height = SIZES[size]
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    assert faults(page) == []


@pytest.mark.page
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_has_a_fault(page: Any, server: LiveServer, view: str) -> None:
    page.goto(f"{server.url}/#{view}")
    page.locator(f"#view-{view}:not([hidden]) {FILLED[view]}").last.wait_for()
    assert faults(page) == []


@pytest.mark.page
def test_what_stands_beside_a_text_comes_together_whichever_part_is_loaded_first(
    direct_page: Any, server: LiveServer
) -> None:
    page, held = direct_page, list[Any]()
    page.route("**/inspector.js", lambda route: held.append(route))
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    assert len(held) == 1
    assert page.locator(".piece-token").count() == 0
    held[0].fallback()
    page.locator(".piece-token h2").first.wait_for()
    assert faults(page) == []


@pytest.mark.page
def test_parameters_conversations_and_notices_have_no_fault(page: Any, server: LiveServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    page.get_by_role("tab", name="Parameters").click()
    for summary in page.locator(".groups summary").all():
        summary.click()
    assert page.locator("[data-parameter]").count() > 50
    assert faults(page) == []
    page.get_by_label("Find a parameter").fill("no such thing")
    page.get_by_label("Chat").check()
    page.get_by_role("textbox", name="Message", exact=True).fill("Hi")
    page.keyboard.press("Enter")
    page.wait_for_selector(".run[data-state=done]")
    assert faults(page) == []


@pytest.mark.page
def test_everything_is_reached_and_seen_by_keyboard_alone(page: Any, server: LiveServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("""() => {
          const { activeElement: one } = document;
          const name = one.id || one.className || one.tagName;
          const shown = getComputedStyle(one).outlineStyle !== "none" || one.matches(".skip");
          return shown ? name : `${name} has no outline`;
        }""")
        )
        if reached[-1].startswith("BODY"):
            reached.pop()
            break
    assert not [name for name in reached if "no outline" in name]
    for part in ("skip", "colour", "log", "prompt", "send-with", "tab-token"):
        assert any(part in name for name in reached), reached
    assert any("token" in name.split() for name in reached), reached
