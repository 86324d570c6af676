"""Tests the page on a phone: nothing is wider than the screen, and what one writes stays in view."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.live import LiveServer

pytestmark = pytest.mark.page


@pytest.fixture
def phone(browser: Any, watch: Any, server: LiveServer) -> Any:
    """Returns the page on a narrow touch screen, after its first text."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    watch.listen(page)
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    yield page
    context.close()


def test_nothing_is_wider_than_the_screen_and_zooming_is_allowed(phone: Any) -> None:
    assert phone.evaluate("document.documentElement.scrollWidth <= 360")
    content = phone.locator('meta[name="viewport"]').get_attribute("content")
    assert "user-scalable" not in content
    assert "maximum-scale" not in content
    phone.get_by_role("button", name="Parameters").tap()
    assert phone.evaluate("document.documentElement.scrollWidth <= 360")


def test_fields_have_letters_of_16_pixels_so_that_browsers_do_not_zoom_in(phone: Any) -> None:
    # The token that is open, whose fields come later.
    phone.locator(".what-if").wait_for(state="attached")
    phone.get_by_role("button", name="Parameters").tap()
    small = phone.evaluate("""() => [...document.querySelectorAll("input, select, textarea")]
      .filter((one) => parseFloat(getComputedStyle(one).fontSize) < 16).map((one) => one.id)""")
    assert small == []


def test_the_field_and_its_button_stay_in_view_when_the_keyboard_takes_half_the_screen(phone: Any) -> None:
    phone.get_by_role("textbox", name="Prompt").tap()
    phone.set_viewport_size({"width": 360, "height": 380})
    for name in ("textbox", "button"):
        box = phone.get_by_role(
            name, name="Prompt" if name == "textbox" else "Write", exact=True
        ).bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 380
    assert phone.locator("#log").evaluate("(e) => e.clientHeight") > 60


def test_a_keyboard_that_covers_the_page_moves_it_up(phone: Any) -> None:
    # Browsers that do not resize the page tell the part that is left by visualViewport.
    phone.evaluate("""() => {
      Object.defineProperty(visualViewport, "height", { get: () => 400 });
      visualViewport.dispatchEvent(new Event("resize"));
    }""")
    box = phone.get_by_role("button", name="Write", exact=True).bounding_box()
    assert box["y"] + box["height"] <= 400


def test_a_touch_opens_a_token_in_a_sheet_that_closes(phone: Any) -> None:
    phone.locator(".token").nth(3).tap()
    sheet = phone.locator(".details")
    assert sheet.is_visible()
    phone.get_by_role("button", name="Close details").tap()
    assert sheet.is_hidden()


TYPED = """(e) => {
  e.focus();
  e.value = "Twelve words of a text that somebody has pasted, without an end. ".repeat(4600);
  e.dispatchEvent(new Event("input", { bubbles: true }));
  e.setSelectionRange(e.value.length, e.value.length);
  window.times = [];
  e.addEventListener("keydown", () => {
    const from = performance.now();
    requestAnimationFrame(() => setTimeout(() => times.push(performance.now() - from)));
  });
}"""


def typing_times(page: Any, field: Any) -> list[float]:
    """Returns the milliseconds from each key to the frame after it, sorted."""
    field.evaluate(TYPED)
    page.wait_for_timeout(300)
    for key in "abcdefgh":
        page.keyboard.press(key)
        page.wait_for_timeout(50)
    return sorted(page.evaluate("times"))


def test_typing_is_as_quick_as_in_a_bare_field_after_300_kilobytes_were_pasted(
    phone: Any, context: Any
) -> None:
    times = typing_times(phone, phone.get_by_role("textbox", name="Prompt"))
    bare = context.new_page()
    bare.set_content("<textarea rows=3 spellcheck=false></textarea>")
    compared = typing_times(bare, bare.locator("textarea"))
    # On a busy machine a bare field takes longer than 50 ms too.
    assert times[len(times) // 2] < max(50, 2 * compared[len(compared) // 2])


def test_a_long_paste_leaves_the_button_in_view(phone: Any) -> None:
    phone.get_by_role("textbox", name="Prompt").evaluate(TYPED)
    box = phone.get_by_role("button", name="Write", exact=True).bounding_box()
    assert box["y"] + box["height"] <= 740
