"""Tests that the page keeps up with long texts. These tests measure, with bounds that a slow machine meets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import write_model
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving

pytestmark = pytest.mark.page
TOKENS = 2000
PARAMS = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 1.0, "seed": 1}
# Counts the frames, and keeps the longest script of a frame.
FRAMES = """() => {
  const real = window.requestAnimationFrame.bind(window);
  window.frames_ = { count: 0, longest: 0, scripts: [] };
  window.requestAnimationFrame = (callback) => real((time) => {
    const from = performance.now();
    callback(time);
    window.frames_.count += 1;
    window.frames_.scripts.push(performance.now() - from);
  });
  new MutationObserver(() => {
    if (document.querySelector("[data-state=done]")) window.frames_.done = performance.now();
  }).observe(document, { subtree: true, attributeFilter: ["data-state"] });
}"""


@pytest.fixture(scope="module")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Returns a server of a tiny model with a long context."""
    with serving(open_tiny(write_model(tmp_path_factory.mktemp("long"), context=4096))) as found:
        yield found


def write(page: Any, prompt: str, params: dict[str, Any]) -> None:
    """Writes a text and waits for its end."""
    page.evaluate(FRAMES)
    page.get_by_role("tab", name="Parameters").click()
    for name in ("max_tokens", "temperature", "seed"):
        page.get_by_label(name, exact=True).fill(str(params[name]))
    page.get_by_label("Find a parameter").fill("ignore_eos")
    page.get_by_label("ignore_eos", exact=True).check()
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.evaluate("window.frames_.scripts = []")
    page.get_by_role("button", name="Write").click()
    page.wait_for_selector("[data-state=running]")
    page.wait_for_selector("[data-state=done]", timeout=60_000)


def test_a_long_text_costs_little_a_frame_and_few_nodes(long_server: LiveServer, page: Any) -> None:
    page.goto(long_server.url)
    page.wait_for_selector("[data-state=done]")
    write(page, "Hello", PARAMS)
    found = page.evaluate("window.frames_")
    scripts = sorted(found["scripts"])
    print(len(scripts), scripts[len(scripts) // 2], scripts[-5:])
    ended = page.evaluate(
        "Math.max(...performance.getEntriesByType('resource')"
        ".filter((e) => e.name.endsWith('/trace')).map((e) => e.responseEnd))"
    )
    print(found["done"] - ended)
    nodes = page.evaluate("""() => {
      let count = 0;
      const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL);
      while (walker.nextNode()) count += 1;
      return [document.querySelectorAll("*").length, count];
    }""")
    print(nodes)
    assert page.locator(".token[data-i]").count() == TOKENS
