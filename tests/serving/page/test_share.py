"""Tests how runs are handed on: copied as code, saved and opened as files and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving
from tests.serving.page.branching import kept

MARKUP = (
    '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script> [x](javascript:window.hurt=1)'
    " ![](http://evil.example/?q=) ‮\u200b"
)


@pytest.fixture
def shared(opened: Any, context: Any) -> Any:
    """Returns the page with the menu of the run that it shows."""
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.get_by_role("tab", name="Runs").click()
    opened.locator(".sharing fieldset:enabled").wait_for()
    return opened


def saved(page: Any, button: str, folder: Path) -> Path:
    """Returns the file that a button saves."""
    with page.expect_download() as found:
        page.get_by_role("button", name=button).click()
    file = folder / found.value.suggested_filename
    found.value.save_as(file)
    return file


def open_file(page: Any, *files: Path) -> None:
    page.get_by_label("Files of runs").set_input_files([str(file) for file in files])


def tokens_of(page: Any) -> list[str]:
    texts: list[str] = page.locator(".run .token").all_inner_texts()
    return texts


def test_a_run_is_copied_as_code(shared: Any) -> None:
    for name, begin in {
        "curl": "curl -sS http",
        "Python": "from decodery",
        "command line": "decodery generate",
    }.items():
        shared.get_by_role("button", name=f"Copy as {name}").click()
        shared.locator(".notice", has_text=f"copied as {name}").wait_for()
        code = shared.evaluate("navigator.clipboard.readText()")
        assert code.startswith(begin)
        assert shared.locator(".sharing .code").inner_text().strip() == code.strip()


@pytest.mark.page
def test_where_the_clipboard_is_forbidden_the_code_is_selected(opened: Any) -> None:
    forbidden = "async () => { throw new DOMException('no', 'NotAllowedError'); }"
    opened.evaluate(f"() => {{ navigator.clipboard.writeText = {forbidden}; }}")
    opened.get_by_role("tab", name="Runs").click()
    opened.get_by_role("button", name="Copy as Python").click()
    opened.locator(".notice", has_text="The code is selected").wait_for()
    assert opened.evaluate("getSelection().toString()").startswith("from decodery")


@pytest.mark.page
def test_a_run_goes_to_another_browser_as_json_and_as_a_page(
    shared: Any, browser: Any, server: LiveServer, tmp_path: Path
) -> None:
    files = [saved(shared, "Save as JSON", tmp_path), saved(shared, "Save as page", tmp_path)]
    assert [file.name for file in files] == [
        "decodery-once-upon-a-time.json",
        "decodery-once-upon-a-time.html",
    ]
    expected = tokens_of(shared)
    for file in files:
        with browser.new_context() as other:
            page = other.new_page()
            page.goto(server.url)
            page.wait_for_selector("[data-state=done]")
            page.evaluate("document.querySelector('.run').dataset.old = 'yes'")
            open_file(page, file)
            page.locator(".run:not([data-old])").wait_for()
            assert tokens_of(page) == expected


@pytest.mark.page
def test_a_saved_page_opens_without_a_server(shared: Any, browser: Any, tmp_path: Path) -> None:
    file = saved(shared, "Save as page", tmp_path)
    count = len(tokens_of(shared))
    with browser.new_context(offline=True) as other:
        page = other.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.on(
            "request", lambda request: None if request.url.startswith("file:") else faults.append(request.url)
        )
        page.goto(file.as_uri())
        tokens = page.locator("a.t")
        assert tokens.count() == count
        tokens.nth(3).hover()
        assert page.locator(".panel.open").get_attribute("id") == "c0t3"
        # Its policy forbids scripts that it does not know, and requests.
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'hurt = 1'}))"
        )
        assert page.evaluate("typeof hurt") == "undefined"
        assert any("Content Security Policy" in fault for fault in faults)
        assert [fault for fault in faults if "Content Security Policy" not in fault] == []


@pytest.mark.page
def test_hostile_names_and_texts_of_a_file_are_shown_as_text(shared: Any, watch: Any, tmp_path: Path) -> None:
    # The server has no model of that name.
    watch.allowed += ["404 (Not Found)"]
    file = saved(shared, "Save as JSON", tmp_path)
    run = json.loads(file.read_text())
    run["title"] = MARKUP
    header = run["lines"][0]
    header["model"] = MARKUP
    header["requests"][0]["prompt"] = MARKUP
    for line in run["lines"]:
        if line["kind"] == "tokens":
            line["tokens"] = [[token, MARKUP.encode().hex()] for token, _ in line["tokens"]]
    file.write_text(json.dumps(run))
    before = shared.locator("img, iframe, a, script").count()
    open_file(shared, file)
    shared.locator(".run .prompt-inline", has_text="onerror").wait_for()
    assert shared.locator("img, iframe, a, script").count() == before
    assert shared.evaluate("window.hurt") is None
    assert "<script>" in tokens_of(shared)[0]
    assert shared.locator(".run-list", has_text="<img src=x").count() == 1
    # Saved as a page, it is text too.
    page = saved(shared, "Save as page", tmp_path)
    shared.goto(page.as_uri())
    assert shared.evaluate("window.hurt") is None
    assert shared.locator("img, iframe").count() == 0
    assert "<img src=x" in shared.locator("a.t").first.inner_text()


@pytest.mark.page
def test_a_file_that_is_no_run_is_refused_in_one_line(shared: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"format": "decodery-run", "version": 7}')
    expected = tokens_of(shared)
    open_file(shared, file)
    shared.locator(".notice.error", has_text="The run has version 7; this page reads version 1.").wait_for()
    assert tokens_of(shared) == expected


@pytest.mark.page
def test_kept_runs_are_read_and_shared_without_the_server_which_comes_back_by_itself(
    page: Any, folder: str, context: Any, watch: Any, tmp_path: Path
) -> None:
    watch.allowed += ["ERR_CONNECTION_REFUSED"]
    llm: LLM = open_tiny(folder)
    with serving(llm) as server:
        port = server.port
        page.goto(server.url)
        page.wait_for_selector("[data-state=done]")
        page.locator(".sharing fieldset:enabled").wait_for(state="attached")
        page.wait_for_load_state("networkidle")
        expected = tokens_of(page)
        page.get_by_role("tab", name="Runs").click()
    file = saved(page, "Save as JSON", tmp_path)
    page.get_by_role("button", name="Save as page").click()
    page.locator(".notice.error", has_text="cannot be reached").first.wait_for()
    open_file(page, file)
    page.locator(".notice", has_text="is opened").wait_for()
    assert tokens_of(page) == expected
    page.locator(".token").nth(2).click()
    with serving(llm, port=port):
        page.locator(".notice", has_text="The server answers again.").wait_for()
        page.get_by_role("tab", name="Runs").click()
        saved(page, "Save as page", tmp_path)


@pytest.mark.page
def test_the_page_opens_with_its_runs_when_the_server_is_gone_and_works_when_it_is_back(
    page: Any, folder: str, watch: Any
) -> None:
    watch.allowed += ["ERR_CONNECTION_REFUSED"]
    llm: LLM = open_tiny(folder)
    with serving(llm) as server:
        port, url = server.port, server.url
        page.goto(url)
        page.wait_for_selector("[data-state=done]")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.wait_for_load_state("networkidle")
        expected = tokens_of(page)
        kept(page, page.locator(".run").get_attribute("data-run"), len(expected))
    page.goto("about:blank")
    page.goto(url)
    page.locator(".notice.error", has_text="cannot be reached").first.wait_for()
    page.locator(".run .token").nth(len(expected) - 1).wait_for()
    assert tokens_of(page) == expected
    # Views that were never opened are there too.
    for link in page.locator("#views a").all():
        link.click()
        page.locator(".view:not([hidden])").wait_for()
    with serving(llm, port=port):
        page.locator(".notice", has_text="The server answers again.").wait_for()
        assert page.locator("#model option").count() == 1
