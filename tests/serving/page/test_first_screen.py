"""Tests the page as it opens: a text is there, without a key pressed."""

from __future__ import annotations

from typing import Any

from decodery import LLM, GenerationParams

PARAMS = GenerationParams(max_tokens=40, temperature=0.8, seed=7)


def test_opened_fresh_the_page_shows_the_default_prompt_decoded_and_coloured(
    opened: Any, library: LLM
) -> None:
    [output] = library.generate("Once upon a time", PARAMS)
    tokens = opened.locator("#text .token")
    assert tokens.count() == len(output.completions[0].token_ids)
    for token in tokens.all():
        assert "token s" in (token.get_attribute("class") or "")


def test_a_second_text_takes_the_place_of_the_first(opened: Any) -> None:
    opened.get_by_label("Prompt").fill("Hello")
    opened.get_by_role("button", name="Write").click()
    opened.wait_for_selector("[data-state=running], [data-state=waiting]")
    opened.wait_for_selector("[data-state=done]")
    assert opened.locator("#text .token").count() == 40
