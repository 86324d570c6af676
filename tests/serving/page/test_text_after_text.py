"""Tests texts after texts where the tokenizer puts a space before each: both have the tokens of one text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving
from tests.serving.page.branching import run_of
from tests.serving.page.test_prompt_view import ANSWERS, EXAMPLE, row, score, totals
from tests.serving.page.test_steps import OTHER, after, begin
from tests.serving.page.two_models import write_prepending_model


@pytest.fixture(scope="module")
def prepending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(open_tiny(write_prepending_model(tmp_path_factory.mktemp("prepending")))) as found:
        yield found


def added(llm: LLM, text: str, more: str) -> list[int]:
    """Returns the tokens that the second text adds to those of the first."""
    encode = llm.tokenizer.encode
    before, whole = encode(text), encode(text + more)
    assert whole[: len(before)] == before
    assert whole[len(before) :] != encode(more, add_special_tokens=False)
    return whole[len(before) :]


@pytest.mark.page
def test_an_answer_has_no_space_that_the_tokenizer_puts_before_a_text(
    page: Any, prepending: LiveServer
) -> None:
    llm = prepending.llm
    page.goto(f"{prepending.url}#prompt")
    encode = llm.tokenizer.encode
    answers = [added(llm, EXAMPLE, answer) for answer in ANSWERS]
    assert row(page, 0) == pytest.approx(totals(llm, encode(EXAMPLE), answers), abs=1e-12)
    # Answers are divided anew after another prompt.
    prompt = "The quick brown "
    score(page, prompt)
    divided = page.get_by_text("Divided alone")
    alone = encode(" he", add_special_tokens=False)
    whole = encode(prompt + " he")
    joined = whole[: len(encode(prompt))] == encode(prompt)
    expected = whole[len(encode(prompt)) :] if joined else alone
    assert row(page, 0)[0] == pytest.approx(totals(llm, encode(prompt), [expected])[0], abs=1e-12)
    assert divided.is_visible() == (not joined)


@pytest.mark.page
def test_a_typed_text_goes_on_from_the_text_without_a_space_of_its_own(
    page: Any, prepending: LiveServer
) -> None:
    tokenizer = prepending.llm.tokenizer
    page.goto(prepending.url)
    page.wait_for_selector("[data-state=done]")
    steps = begin(page)
    typed = "!x y"
    expected = added(prepending.llm, "Once upon a time", typed)
    steps.get_by_label("Or type what comes next").fill(typed)
    steps.get_by_role("button", name="Add").click()
    after(page, len(expected))
    run = run_of(page)
    assert run["tokens"] == expected
    assert tokenizer.decode([*run["prompt"], *run["tokens"]]).lstrip() == f"Once upon a time{typed}"
    steps.locator(OTHER).first.click()
    after(page, len(expected) + 1)
    before = tokenizer.decode([*run["prompt"], *run_of(page)["tokens"]])
    steps.get_by_label("Or type what comes next").fill("\u00e9")
    steps.get_by_role("button", name="Add").click()
    after(page, len(expected) + 2)
    run = run_of(page)
    assert tokenizer.decode([*run["prompt"], *run["tokens"]]) == f"{before}\u00e9"
