"""Tests the page when its server goes away and comes back, and when a text is cut."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.live import LiveServer
from tests.serving.page.test_write import paced, set_parameter, write

pytestmark = pytest.mark.page


def test_a_server_that_goes_away_is_told_and_what_is_here_can_be_read(
    opened: Any, server: LiveServer, watch: Any
) -> None:
    watch.allowed = ["Failed to load resource", "net::ERR"]
    count = opened.locator(".token").count()
    opened.context.set_offline(True)
    opened.get_by_role("button", name="Write", exact=True).click()
    opened.wait_for_selector(".notice.error")
    assert "cannot be reached" in opened.locator(".notice.error").inner_text()
    opened.get_by_role("tab", name="Runs").click()
    opened.locator(".run-name").last.click()
    assert opened.locator(".token").count() == count
    opened.context.set_offline(False)
    opened.wait_for_selector(".notice:not(.error)")
    assert opened.locator(".notice.error").count() == 0
    write(opened, "Hello")
    opened.wait_for_selector(".run[data-state=done]")


def test_a_stream_that_breaks_keeps_its_tokens_and_is_marked_as_cut(
    opened: Any, server: LiveServer, watch: Any
) -> None:
    watch.allowed = ["ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION", "ERR_EMPTY", "Failed to load"]
    set_parameter(opened, "max_tokens", "400")
    with paced(server, 0.02):
        write(opened, "Hello")
        opened.wait_for_selector(".run .token >> nth=5")
        # The server ends all streams, as when it goes down.
        server.awaited(_cut, server)
        opened.wait_for_selector(".run[data-state=cut], .run[data-state=failed]")
    assert opened.locator(".run .token").count() >= 5


async def _cut(server: LiveServer) -> None:
    for active in list(server.service.active):
        if active._stream is not None:
            active._stream.cut()


def test_a_view_that_cannot_be_loaded_is_told_and_the_others_open(
    direct_page: Any, server: LiveServer, watch: Any
) -> None:
    page = direct_page
    watch.allowed += ["Failed to load resource", "net::ERR", "preload"]
    page.route("**/views/tokens.js", lambda route: route.abort())
    page.goto(server.url)
    page.wait_for_selector(".run[data-state=done]")
    page.get_by_role("link", name="Tokens").click()
    page.wait_for_selector(".notice.error")
    assert "Tokens" in page.locator(".notice.error").inner_text()
    page.get_by_role("link", name="Write").click()
    page.wait_for_selector("#view-write:not([hidden])")
    # Two views in a row: the last one is shown, however long the others take.
    page.evaluate("() => { location.hash = '#compare'; location.hash = '#write'; }")
    page.wait_for_timeout(300)
    assert page.locator("#view-write").is_visible()


def test_opened_while_the_server_is_away_the_page_comes_back_by_itself(
    page: Any, server: LiveServer, watch: Any
) -> None:
    watch.allowed = ["Failed to load resource", "net::ERR"]
    page.route("**/v1/models", lambda route: route.abort())
    page.route("**/health", lambda route: route.abort())
    page.goto(server.url)
    page.wait_for_selector(".notice.error")
    page.unroute("**/v1/models")
    page.unroute("**/health")
    page.wait_for_selector(".run[data-state=done]")
