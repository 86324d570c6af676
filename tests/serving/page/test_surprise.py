"""Tests the view of surprise: a person's text beside a decoded one."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM, BeamSearch, GenerationParams
from tests.serving.live import LiveServer
from tests.serving.page.conftest import Watch

pytestmark = pytest.mark.page

TEXT = "A short text <img src=x onerror=alert(1)> of a person."
SHARED = 16
HEADINGS = "() => [...document.querySelectorAll('.surprise-text h3')].map((h) => h.textContent)"
READING = "() => document.querySelector('.told').textContent"


@pytest.fixture(scope="module")
def view(browser: Any, server: LiveServer) -> Iterator[Any]:
    """Returns the page with the view of surprise, after its first comparison; these tests share it."""
    watch = Watch()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    watch.listen(page)
    page.goto(server.url)
    page.get_by_role("link", name="Surprise").click()
    page.wait_for_selector(".surprise-text")
    yield page
    context.close()
    watch.check()


def compare(view: Any, text: str, method: str = "greedy") -> None:
    """Compares a text, and waits until it is shown."""
    view.get_by_label("A text that a person wrote").fill(text)
    view.locator("#method").select_option(method)
    view.evaluate("() => document.querySelector('.surprise-result').replaceChildren()")
    view.get_by_role("button", name="Compare").click()
    view.wait_for_selector(".surprise-text")


def bits(logprobs: list[float]) -> list[float]:
    return [-value / math.log(2) for value in logprobs]


def person_bits(library: LLM, text: str) -> list[float]:
    """Returns the surprises of a text's tokens from the second on."""
    [output] = library.generate(text, GenerationParams(max_tokens=1, prompt_logprobs=0))
    return bits([entry.logprob for entry in output.prompt_logprobs or () if entry is not None])


def said(values: list[float]) -> str:
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return f"{mean:.2f} bits a token, ± {deviation:.2f} ({len(values)} tokens after the shared beginning)"


def test_one_click_draws_the_picture(view: Any) -> None:
    assert view.locator(".surprise-chart path.person").count() == 1
    assert view.locator(".surprise-chart path.model").count() == 1
    assert view.locator(".surprise-text").count() == 2


METHODS: dict[str, GenerationParams] = {
    "beam search, 4 beams": GenerationParams(strategy=BeamSearch(num_beams=4)),
    "greedy": GenerationParams(temperature=0),
    "top-p 0.9": GenerationParams(top_p=0.9),
}


def test_both_texts_have_the_surprise_that_the_library_gives_them(view: Any, library: LLM) -> None:
    person = person_bits(library, TEXT)
    ids = library.tokenizer.encode(TEXT)
    for name, params in METHODS.items():
        compare(view, TEXT, name)
        more = params.replace(max_tokens=len(ids) - SHARED, logprobs=0, seed=1)
        [output] = library.generate([ids[:SHARED]], more)
        model = bits([entry.logprob for entry in output.completions[0].logprobs or ()])
        expected = [f"person {said(person[SHARED - 1 :])}", f"{name} {said(model)}"]
        assert view.evaluate(HEADINGS) == expected


def test_the_chart_is_read_with_the_arrow_keys(view: Any, library: LLM) -> None:
    compare(view, TEXT)
    view.locator(".surprise-chart").focus()
    person = person_bits(library, TEXT)
    view.keyboard.press("Home")
    assert "person: A not known" in view.evaluate(READING)
    for place in range(1, 5):
        view.keyboard.press("ArrowRight")
        assert f"{person[place - 1]:.2f} bits" in view.evaluate(READING)
    view.keyboard.press("End")
    assert f"{person[-1]:.2f} bits" in view.evaluate(READING)


def test_markup_in_a_text_is_shown_as_text(view: Any) -> None:
    compare(view, TEXT)
    assert view.locator(".surprise-text .tokens").first.inner_text() == TEXT
    assert view.locator("main img").count() == 0


@pytest.mark.parametrize("text", ["", "   ", "x"])
def test_a_text_that_is_too_short_is_said_to_be(view: Any, text: str) -> None:
    view.get_by_label("A text that a person wrote").fill(text)
    view.get_by_role("button", name="Compare").click()
    view.locator("#view-surprise > .dim", has_text=re.compile("no text|too short")).wait_for()
