"""Tests the view of tokenizers in a browser, against the library's tokens of the same texts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from decodery import LLM
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.serving.live import LiveServer
from tests.serving.page.two_models import BYTES, MERGES

FAMILY = "👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧"
HOSTILE = {
    "five times one word": "the cat and the dog and the fox and the hen and the",
    "emoji, family and flag": f"😀 the {FAMILY} the 🇩🇪 the",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)> [x](javascript:alert(1))",
    "bidi and zero width": "a\N{RIGHT-TO-LEFT OVERRIDE}b\N{ZERO WIDTH SPACE}c\N{LEFT-TO-RIGHT ISOLATE}d",
    "spaces, tabs, lines": "  the\tthe\n\n the \n",
    "special token": "a <|endoftext|> b <|end|> c",
    "no space": "x" * 900,
}


@pytest.fixture
def view(page: Any, two_models: LiveServer) -> Any:
    """Returns the view with both tokenizers."""
    page.goto(f"{two_models.url}#tokens")
    page.get_by_role("checkbox", name=MERGES).check()
    show(page, "Hello")
    return page


def column(view: Any, name: str) -> Any:
    return view.locator(f"#view-tokens section[aria-label={name}]")


def show(view: Any, text: str) -> None:
    """Types a text and waits for its tokens in both columns."""
    view.get_by_label("Text to divide").fill(text)
    for one in (BYTES, MERGES):
        divided(view, one)


def divided(view: Any, name: str) -> None:
    """Waits until a column shows all tokens of what was entered last."""
    column(view, name).and_(view.locator("[data-state=done]")).wait_for()


def shown(view: Any, name: str) -> list[str]:
    """Returns the text of each token that a column shows: what copying it gives."""
    found: list[str] = (
        column(view, name).locator(".token").evaluate_all("(all) => all.map((t) => t.textContent)")
    )
    return found


def added(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Returns the text that each token adds; a character belongs to the token with its last byte."""
    texts = [""] + [
        b"".join(map(tokenizer.token_bytes, ids[: i + 1])).decode("utf-8", "ignore") for i in range(len(ids))
    ]
    return [new[len(old) :] for old, new in pairwise(texts)]


def test_each_token_shows_its_own_text_and_together_they_copy_as_the_text(
    view: Any, library: LLM, merging: LLM
) -> None:
    for text in HOSTILE.values():
        show(view, text)
        for name, llm in ((BYTES, library), (MERGES, merging)):
            ids = llm.tokenizer.encode(text)
            assert shown(view, name) == added(llm.tokenizer, ids)
            assert "".join(shown(view, name)) == text
            assert f"{len(ids)} tokens" in column(view, name).locator("h3").inner_text()
        counts = view.locator("#tokens-counts").inner_text()
        assert counts == f"{len(text)} characters · {len(text.encode())} bytes"


@pytest.mark.page
def test_what_cannot_be_seen_has_a_mark_that_is_not_copied(view: Any) -> None:
    show(view, "a \n\t\N{ZERO WIDTH SPACE}")
    marks = (
        column(view, BYTES)
        .locator(".token")
        .evaluate_all("(all) => all.map((t) => [t.dataset.mark, t.dataset.bytes])")
    )
    assert marks[1:4] == [["·", None], ["⏎", None], ["⇥", None]]
    assert [data for _, data in marks[4:]] == ["E2", "80", "8B"]


@pytest.mark.page
def test_a_token_tells_its_id_bytes_and_span_in_bytes(view: Any, merging: LLM) -> None:
    text = HOSTILE["emoji, family and flag"] + " the"
    show(view, text)
    ids, spans = merging.tokenizer.encode_spans(text)
    tokens = column(view, MERGES).locator(".token")
    the = [i for i, token in enumerate(ids) if merging.tokenizer.token_bytes(token) == b" the"]
    assert len(the) >= 3
    for place in (*the, 0, 3):
        tokens.nth(place).click()
        told = column(view, MERGES).locator("dl").inner_text()
        start, end = spans[place]
        data = merging.tokenizer.token_bytes(ids[place])
        assert f"{place + 1} of {len(ids)}" in told
        assert f"Id\n{ids[place]}" in told
        assert data.hex(" ").upper() in told
        assert (f"bytes {start} to {end - 1}" if end - start > 1 else f"byte {start}") in told


@pytest.mark.page
def test_a_token_under_the_pointer_marks_the_same_bytes_in_the_other_tokenizer(
    view: Any, library: LLM, merging: LLM
) -> None:
    text = HOSTILE["five times one word"]
    show(view, text)
    _, bytes_spans = library.tokenizer.encode_spans(text)
    _, spans = merging.tokenizer.encode_spans(text)
    tokens = column(view, MERGES).locator(".token")
    for place in range(len(spans)):
        tokens.nth(place).hover()
        start, end = spans[place]
        linked = (
            column(view, BYTES)
            .locator(".linked")
            .evaluate_all("(all) => all.map((t) => Number(t.dataset.i))")
        )
        assert linked == [i for i, (a, b) in enumerate(bytes_spans) if a < end and b > start]
        assert column(view, MERGES).locator(".linked").count() == 0


@pytest.mark.page
def test_a_click_selects_the_bytes_in_the_field_and_the_caret_marks_its_token(view: Any) -> None:
    text = f"{FAMILY} the end"
    show(view, text)
    column(view, MERGES).locator(".token", has_text="the").last.click()
    selected = view.get_by_label("Text to divide").evaluate(
        "(f) => f.value.slice(f.selectionStart, f.selectionEnd)"
    )
    assert selected == " the"
    view.get_by_label("Text to divide").evaluate(
        "(f) => { f.focus(); f.setSelectionRange(f.value.length - 1, f.value.length - 1); }"
    )
    column(view, BYTES).locator(".linked", has_text="d").wait_for()


@pytest.mark.page
def test_given_ids_show_the_halves_of_a_character(view: Any, library: LLM) -> None:
    ids = library.tokenizer.encode("😀")
    view.get_by_label("Token ids").check()
    view.get_by_role("checkbox", name=MERGES).uncheck()
    for given, data in ((ids[:2], ["F0", "9F"]), (ids, ["F0", "9F", "98", "80"]), (ids[2:], ["98", "80"])):
        view.get_by_label("Text to divide").fill(f"[{', '.join(map(str, given))}]")
        tokens = column(view, BYTES).locator(".token")
        divided(view, BYTES)
        assert tokens.evaluate_all("(all) => all.map((t) => t.dataset.bytes)") == data
    assert tokens.count() == 2


@pytest.mark.page
@pytest.mark.parametrize(
    ("given", "told"), [("1, x", "“x” is no part of a token id"), ("1 99999", "token ids from 0")]
)
def test_wrong_ids_are_named(view: Any, watch: Any, given: str, told: str) -> None:
    watch.allowed.append("400")
    view.get_by_label("Token ids").check()
    view.get_by_label("Text to divide").fill(given)
    # The text that stood there was wrong too.
    column(view, BYTES).get_by_role("alert").filter(has_text=told).wait_for()


@pytest.mark.page
def test_one_column_follows_the_pages_model(view: Any) -> None:
    view.get_by_role("checkbox", name=MERGES).uncheck()
    view.get_by_label("Model", exact=True).select_option(MERGES)
    divided(view, MERGES)
    assert column(view, BYTES).count() == 0
    assert view.get_by_role("checkbox", name=MERGES).is_checked()


@pytest.mark.page
def test_the_last_answer_wins_whichever_comes_last(view: Any) -> None:
    held = []

    def slow(route: Any) -> None:
        if '"first"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    view.route("**/tokenize", slow)
    field = view.get_by_label("Text to divide")
    field.fill("first")
    while not held:
        view.wait_for_timeout(20)
    show(view, "second")
    for route in held:
        route.fallback()
    view.wait_for_timeout(300)
    assert "".join(shown(view, BYTES)) == "".join(shown(view, MERGES)) == "second"


@pytest.mark.page
def test_a_conversation_shows_the_templates_tokens(view: Any, library: LLM) -> None:
    view.get_by_role("checkbox", name=MERGES).uncheck()
    view.get_by_label("Text to divide").fill("Hi")
    view.get_by_label("Chat message").check()
    column(view, BYTES).locator(".token.special").first.wait_for()
    ids = library.chat_prompt([{"role": "user", "content": "Hi"}])
    assert shown(view, BYTES) == added(library.tokenizer, ids)
    assert column(view, BYTES).locator(".special").count() == sum(
        i in library.tokenizer.special_ids for i in ids
    )


@pytest.mark.page
def test_a_pasted_text_of_300_kb_keeps_typing_quick_and_the_page_small(view: Any, library: LLM) -> None:
    text = "the naïve fox " * 20_000
    show(view, text)
    assert view.evaluate("() => document.querySelectorAll('*').length") < 5000
    took = view.get_by_label("Text to divide").evaluate(
        "(f) => { const at = performance.now(); f.value += 'x'; f.dispatchEvent(new Event('input'));"
        " return performance.now() - at; }"
    )
    assert took < 50
    pages = column(view, BYTES).locator(".pages")
    divided(view, BYTES)
    # The page begins with a whole character, and the next one goes on where this one ends.
    seen = "".join(shown(view, BYTES))
    while len(seen) < 5000:
        pages.get_by_role("button", name="Later").click()
        divided(view, BYTES)
        seen += "".join(shown(view, BYTES))
    assert text.startswith(seen)
    assert pages.get_by_role("button", name="Later").is_enabled()


@pytest.mark.page
def test_the_keyboard_alone_goes_from_token_to_token(view: Any) -> None:
    show(view, "the cat")
    view.get_by_label("Show ids").focus()
    view.keyboard.press("Tab")
    for _ in range(3):
        view.keyboard.press("ArrowRight")
    assert "4 of 7" in column(view, BYTES).locator("dl").inner_text()


@pytest.mark.page
def test_axe_finds_no_fault(view: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    column(view, MERGES).locator(".token").first.click()
    for scheme in ("light", "dark"):
        view.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(view)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
