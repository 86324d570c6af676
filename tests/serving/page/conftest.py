"""Provides a browser, and pages in it that fail their test when something goes wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from decodery import LLM
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer
from tests.serving.page.two_models import serving_two, write_merging_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu")
LOCAL = ("127.0.0.1", "localhost", None)


# Not for the session: while playwright is open, an event loop runs in this thread, in which tests of other
# packages could not call `asyncio.run`.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Returns the Chromium of this machine, driven by playwright; skips where one of them is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the tests of the page need playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"the tests of the page need one of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield found
        found.close()


class Watch:
    """Holds what went wrong in a page. `allowed` are parts of messages that a test expects."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.allowed: list[str] = []

    def listen(self, page: Any) -> None:
        """Notes errors of the page, and requests that leave this machine."""
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} ({message.location['url']})")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname not in LOCAL:
            self.faults.append(f"request: {request.url}")

    def check(self) -> None:
        """Fails if something went wrong that was not allowed."""
        assert [fault for fault in self.faults if not any(part in fault for part in self.allowed)] == []


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Returns what watches the test's page."""
    found = Watch()
    yield found
    found.check()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """Returns a fresh context of the browser, with no storage of others."""
    found = browser.new_context(viewport={"width": 1280, "height": 800})
    found.set_default_timeout(60_000)
    yield found
    found.close()


@pytest.fixture
def page(context: Any, watch: Watch) -> Any:
    """Returns an empty page. At the end no error and no request to another host may have come of it."""
    found = context.new_page()
    watch.listen(found)
    return found


@pytest.fixture
def direct_page(browser: Any, watch: Watch) -> Iterator[Any]:
    """Returns an empty page that has no service worker, so that a test may hold or refuse its requests."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, service_workers="block")
    context.set_default_timeout(60_000)
    watch.allowed.append("Service Worker registration blocked")
    found = context.new_page()
    watch.listen(found)
    yield found
    context.close()


@pytest.fixture
def opened(page: Any, server: LiveServer) -> Any:
    """Returns the page of the served model, after its first text has ended and all of it is loaded."""
    page.goto(server.url)
    page.wait_for_selector("[data-state=done]")
    page.wait_for_selector(".piece-token", state="attached")
    return page


@pytest.fixture(scope="session")
def merging(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Returns a model whose tokenizer merges bytes."""
    return open_tiny(write_merging_model(tmp_path_factory.mktemp("merging")))


@pytest.fixture(scope="module")
def two_models(served_llm: LLM, merging: LLM) -> Iterator[LiveServer]:
    """Returns a server with two models: that of the other servers, and the one that merges."""
    with serving_two(served_llm, merging) as found:
        yield found
