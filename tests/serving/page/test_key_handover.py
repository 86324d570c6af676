"""Tests how a key comes into the page in the fragment of its address: nowhere else is it seen."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.cli.commands import playground
from tests.serving.live import LiveServer, serving

KEY = "the-key_of-a-playground"
# Notes the address at each request that the page makes by itself.
NOTED = """window.addresses = [];
const ask = window.fetch;
window.fetch = (...what) => { window.addresses.push(location.href); return ask(...what); };"""


@pytest.fixture(scope="module")
def locked(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with a key."""
    with serving(served_llm, keys=(KEY,)) as found:
        yield found


def test_the_key_is_gone_from_address_and_history_before_the_first_request(
    page: Any, locked: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "decodery.serving")
    requests: list[Any] = []
    page.on("request", lambda request: requests.append(request))
    page.add_init_script(NOTED)
    page.goto(f"{locked.url}/?a=1#key={KEY}")
    page.wait_for_selector("[data-state=done]")
    assert page.url == f"{locked.url}/?a=1"
    assert page.evaluate("addresses.length") > 2
    assert KEY not in page.evaluate("addresses.join()")
    for request in requests:
        named = {name for name, value in request.headers.items() if KEY in value}
        assert named <= {"authorization"}
        # What a browser is told to open it opens with the fragment, which it does not send.
        assert KEY not in request.url.split("#")[0]
    assert any("authorization" in request.headers for request in requests)
    lines = [record.getMessage() for record in caplog.records]
    assert sum('"path": "/trace"' in line for line in lines) >= 1
    assert not any(KEY in line for line in lines)
    page.evaluate("() => { location.hash = '#write'; }")
    page.go_back()
    assert KEY not in page.url
    assert page.evaluate("sessionStorage.length") == 1
    assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie")


@pytest.mark.page
def test_the_file_that_the_browser_is_told_to_open_leads_to_the_page_with_the_key(
    page: Any, locked: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr("webbrowser.open", opened.put)
    playground._announce(KEY, locked.url, tmp_path)
    page.goto(opened.get(timeout=5))
    page.wait_for_selector("[data-state=done]")
    assert page.url == f"{locked.url}/"


@pytest.mark.page
def test_a_key_that_is_pasted_into_an_open_page_is_taken_too(
    page: Any, watch: Any, locked: LiveServer
) -> None:
    watch.allowed = ["401"]
    page.goto(locked.url)
    page.wait_for_selector("#key-dialog[open]")
    page.evaluate(f"() => {{ location.hash = '#key={KEY}'; }}")
    page.locator("#model option").first.wait_for(state="attached")
    assert KEY not in page.url


@pytest.mark.page
@pytest.mark.parametrize("fragment", ["", "%E0%A4%A", "a%20b", "ä", "x" * 5000])
def test_a_damaged_key_is_removed_and_the_page_asks_for_one(
    page: Any, watch: Any, locked: LiveServer, fragment: str
) -> None:
    watch.allowed = ["401"]
    page.goto(f"{locked.url}/#key={fragment}")
    page.wait_for_selector("#key-dialog[open]")
    assert page.url == f"{locked.url}/"


@pytest.mark.page
def test_a_browser_that_forbids_storage_keeps_the_key_while_the_page_is_open(
    page: Any, locked: LiveServer
) -> None:
    forbidden = "get() { throw new DOMException('no', 'SecurityError'); }"
    page.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {{ {forbidden} }});")
    page.goto(f"{locked.url}/#key={KEY}")
    page.wait_for_selector("[data-state=done]")
    assert page.url == f"{locked.url}/"
