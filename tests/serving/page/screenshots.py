"""Draws the pictures of the page that the README shows, docs/images, with the default model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from decodery import LLM
from decodery.serving.models import ModelSource
from decodery.serving.settings import ServerSettings
from tests.serving.live import LiveServer
from tests.serving.page.conftest import ARGUMENTS, BROWSERS

IMAGES = Path(__file__).parents[3] / "docs" / "images"
SIZE = {"width": 1280, "height": 760}
NAME = "SmolLM2-135M-Instruct"


def write(page: Any) -> None:
    """Waits for the first text and for the sliders of its most surprising token."""
    page.locator(".run[data-state=done]").wait_for()
    page.locator(".candidates-part tbody tr").first.wait_for()


def compare(page: Any) -> None:
    """Runs three strategies side by side."""
    page.get_by_role("button", name="Add a column").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".column[data-state=done]").nth(2).wait_for()


VIEWS: dict[str, Callable[[Any], None]] = {"write": write, "compare": compare}


def main() -> None:
    """Writes a picture of each view, light and dark."""
    IMAGES.mkdir(exist_ok=True)
    path = next(filter(None, map(shutil.which, BROWSERS)))
    llm = LLM()
    server = LiveServer(llm, ServerSettings(), [ModelSource(NAME, lambda: llm)])
    with closing(server), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        for scheme in ("light", "dark"):
            for view, prepare in VIEWS.items():
                page = browser.new_page(viewport=SIZE, color_scheme=scheme)
                page.goto(f"{server.url}/#{view}")
                prepare(page)
                page.screenshot(path=IMAGES / f"page-{view}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
