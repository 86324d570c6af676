"""Tests the page of a server with keys: it opens without one, asks for it, and keeps it in the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM
from tests.serving.live import LiveServer, serving

KEY = "a secret-ü key"


@pytest.fixture(scope="module")
def locked(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with a key."""
    with serving(served_llm, keys=("right",)) as found:
        yield found


@pytest.fixture
def asked(page: Any, locked: LiveServer, watch: Any) -> Any:
    """Returns the page of that server, which asks for its key."""
    watch.allowed = ["401"]
    page.goto(locked.url)
    page.wait_for_selector("#key-dialog[open]")
    return page


def give(page: Any, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use key").click()


@pytest.mark.page
def test_without_a_key_the_page_holds_no_data_and_asks_for_it(asked: Any) -> None:
    assert "This server asks for a key" in asked.locator("#key-reason").inner_text()
    assert asked.locator("#model option").count() == 0
    assert asked.locator(".token").count() == 0
    assert asked.evaluate("document.activeElement.id") == "key"


def test_a_wrong_key_is_named_and_the_right_one_shows_the_default_text(asked: Any) -> None:
    give(asked, "wrong")
    asked.locator("#key-reason", has_text="does not accept").wait_for()
    give(asked, "right")
    asked.wait_for_selector(".run[data-state=done]")
    assert asked.locator("#key-dialog[open]").count() == 0
    assert asked.locator(".token").count() > 0


@pytest.mark.page
def test_the_key_is_kept_for_the_session_and_stands_in_no_address_and_no_lasting_store(asked: Any) -> None:
    requests: list[str] = []
    asked.on("request", lambda request: requests.append(request.url))
    give(asked, "right")
    asked.wait_for_selector(".run[data-state=done]")
    asked.reload()
    asked.wait_for_selector(".run[data-state=done]")
    assert asked.locator("#key-dialog[open]").count() == 0
    assert not any("right" in url for url in requests)
    assert "right" not in asked.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert "right" in asked.evaluate("JSON.stringify(sessionStorage)")


@pytest.mark.page
def test_a_key_with_letters_that_headers_lack_is_refused_with_words(asked: Any) -> None:
    give(asked, KEY)
    asked.locator("#key-reason", has_text="does not accept").wait_for()
