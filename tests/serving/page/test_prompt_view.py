"""Tests the view of prompts in a browser, against the library's scores."""

from __future__ import annotations

import math
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from tests.serving.live import LiveServer
from tests.serving.page.two_models import MERGES

EXAMPLE = "The doctor said that"
ANSWERS = (" he", " she")


@pytest.fixture
def view(page: Any, two_models: LiveServer) -> Any:
    """Returns the view with its example."""
    page.goto(f"{two_models.url}#prompt")
    page.locator("#view-prompt td[data-logprob]").nth(1).wait_for()
    return page


def score(view: Any, prompt: str) -> None:
    """Scores a prompt and waits for its row."""
    view.get_by_label("Prompt", exact=True).and_(view.locator("textarea")).fill(prompt)
    view.get_by_role("button", name="Score").click()
    view.locator(".heat[data-state=done]").wait_for()


def row(view: Any, place: int, columns: int = 2) -> list[float]:
    """Returns the log-probabilities in a row, once it is there."""
    cells = view.locator(f"#view-prompt .answers tbody tr:nth-child({place + 1}) td[data-logprob]")
    cells.nth(columns - 1).wait_for()
    found: list[float] = cells.evaluate_all("(all) => all.map((cell) => Number(cell.dataset.logprob))")
    return found


def totals(llm: LLM, prompt: list[int], answers: list[list[int]]) -> list[float]:
    return [scored.total for scored in llm.score(answers, prefix=prompt)]


def ids_of(llm: LLM, *answers: str) -> list[list[int]]:
    return [llm.tokenizer.encode(answer, add_special_tokens=False) for answer in answers]


def test_two_clicks_show_how_a_word_moves_the_probability_of_he_and_she(view: Any, library: LLM) -> None:
    encode = library.tokenizer.encode
    answers = ids_of(library, *ANSWERS)
    assert row(view, 0) == pytest.approx(totals(library, encode(EXAMPLE), answers), abs=1e-12)
    view.locator(".heat .token", has_text="d").first.click()
    view.get_by_role("button", name="Delete doctor").click()
    assert row(view, 1) == pytest.approx(totals(library, encode("The said that"), answers), abs=1e-12)
    assert view.locator(".answers tbody tr").nth(1).locator("del").inner_text() == "doctor"


@pytest.mark.page
def test_each_token_has_the_librarys_probability_rank_and_candidates(view: Any, library: LLM) -> None:
    prompt = "a the 😀 the"
    score(view, prompt)
    params = GenerationParams(max_tokens=1, prompt_logprobs=10)
    [output] = library.generate(prompt, params)
    tokens = view.locator(".heat .token")
    assert output.prompt_logprobs is not None
    assert tokens.count() == len(output.prompt_logprobs)
    bounds = [0.9, 0.6, 0.35, 0.18, 0.08, 0.025, 0.005]
    for place, scored in enumerate(output.prompt_logprobs):
        tokens.nth(place).click()
        panel = view.get_by_role("region", name="Token", exact=True)
        if scored is None:
            assert "nothing comes before it" in panel.inner_text()
            continue
        facts = dict(
            zip(panel.locator("dt").all_inner_texts(), panel.locator("dd").all_inner_texts(), strict=True)
        )
        assert facts["Rank"] == str(scored.rank)
        assert facts["Surprise"] == f"{-scored.logprob / math.log(2):.2f} bits"
        level = sum(math.exp(scored.logprob) < bound for bound in bounds)
        assert f"s{level}" in (tokens.nth(place).get_attribute("class") or "").split()
        shown = panel.locator("[data-token-id]").evaluate_all(
            "(all) => all.map((b) => Number(b.dataset.tokenId))"
        )
        assert shown == [token for token, _ in scored.top if token != scored.token]


@pytest.mark.page
def test_answers_are_joined_to_the_prompt_by_their_ids(view: Any, merging: LLM) -> None:
    encode = merging.tokenizer.encode
    prompt, answer = "the t", "he"
    joined = encode(prompt) + encode(answer, add_special_tokens=False)
    assert joined != encode(prompt + answer)
    view.get_by_label("Model").select_option(MERGES)
    score(view, prompt)
    view.get_by_label("Answer", exact=True).fill(answer)
    view.get_by_role("button", name="Add", exact=True).click()
    answers = ids_of(merging, *ANSWERS, answer)
    assert row(view, 0, 3) == pytest.approx(totals(merging, encode(prompt), answers), abs=1e-12)


@pytest.mark.page
def test_another_word_and_another_token_make_rows_of_their_own(view: Any, library: LLM) -> None:
    encode = library.tokenizer.encode
    answers = ids_of(library, *ANSWERS)
    place = EXAMPLE.index("doctor")
    view.locator(".heat .token").nth(place).click()
    view.get_by_label("Another word").fill("nurse")
    view.get_by_role("button", name="Replace").click()
    expected = totals(library, encode(EXAMPLE.replace("doctor", "nurse")), answers)
    assert row(view, 1) == pytest.approx(expected, abs=1e-12)
    candidate = view.locator("[data-token-id]").first
    token = int(candidate.get_attribute("data-token-id"))
    candidate.click()
    ids = encode(EXAMPLE)
    expected = totals(library, [*ids[:place], token, *ids[place + 1 :]], answers)
    assert row(view, 2) == pytest.approx(expected, abs=1e-12)
    view.get_by_role("button", name="Remove variant 2").click()
    assert row(view, 1) == pytest.approx(expected, abs=1e-12)
    assert view.locator(".answers tbody tr").count() == 2


@pytest.mark.page
def test_the_models_own_answer_is_the_greedy_one(view: Any, library: LLM) -> None:
    view.get_by_role("button", name="Add the model's answer").click()
    [output] = library.generate(EXAMPLE, GenerationParams(max_tokens=8, temperature=0))
    own = output.completions[0].token_ids
    expected = totals(library, library.tokenizer.encode(EXAMPLE), [*ids_of(library, *ANSWERS), own])
    assert row(view, 0, 3) == pytest.approx(expected, abs=1e-12)
    assert view.locator(".answers thead .answer").nth(2).locator(".token-label").count() == len(own)


@pytest.mark.page
def test_another_model_scores_the_same_texts_anew(view: Any, merging: LLM) -> None:
    encode = merging.tokenizer.encode
    view.get_by_label("Model").select_option(MERGES)
    view.locator(f".heat .token:nth-child({len(encode(EXAMPLE))}):last-child").wait_for()
    # The server has ended its step then: the library uses the same model.
    found = row(view, 0)
    expected = totals(merging, encode(EXAMPLE), ids_of(merging, *ANSWERS))
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.page
def test_texts_stay_texts(view: Any) -> None:
    hostile = "<img src=x onerror=alert(1)> \N{RIGHT-TO-LEFT OVERRIDE}b 👨\N{ZERO WIDTH JOINER}👩"
    score(view, hostile)
    copied = view.locator(".heat .token").evaluate_all("(all) => all.map((t) => t.textContent).join('')")
    assert copied == hostile
    view.get_by_label("Answer", exact=True).fill(" <b>x</b>")
    view.get_by_role("button", name="Add", exact=True).click()
    row(view, 0, 3)
    assert view.locator("#view-prompt img, #view-prompt .answers .answer b").count() == 0


@pytest.mark.page
@pytest.mark.parametrize(("prompt", "told"), [("", "Write a prompt first."), ("x" * 2000, "context")])
def test_a_prompt_that_cannot_be_scored_says_why_and_the_last_one_stays(
    view: Any, watch: Any, prompt: str, told: str
) -> None:
    watch.allowed.append("400")
    view.get_by_label("Prompt", exact=True).and_(view.locator("textarea")).fill(prompt)
    view.get_by_role("button", name="Score").click()
    wrong = view.locator("#view-prompt > [role=alert]")
    wrong.wait_for()
    assert told in wrong.inner_text()
    assert view.locator(".heat .token").count() == len(EXAMPLE)
    score(view, "Hello")
    assert wrong.is_hidden()


@pytest.mark.page
def test_a_variant_without_any_token_says_that_nothing_is_before_the_answer(view: Any) -> None:
    score(view, "word")
    view.locator(".heat .token").first.click()
    view.get_by_role("button", name="Delete word").click()
    view.locator(".answers td.wrong").nth(1).wait_for()
    assert view.locator(".answers td.wrong").all_inner_texts() == ["nothing is before it"] * 2


@pytest.mark.page
def test_the_keyboard_alone_changes_a_word(view: Any) -> None:
    view.get_by_role("button", name="Score").focus()
    view.keyboard.press("Tab")
    for _ in range(5):
        view.keyboard.press("ArrowRight")
    view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    assert len(row(view, 1)) == 2


@pytest.mark.page
def test_shares_and_factors_are_those_of_the_probabilities(view: Any) -> None:
    found = view.evaluate(
        "async () => { const m = await import('/assets/parts/answer_table.js'); return ["
        "m.shares([-1, -2, null]), m.shares([-2000, -2001]), m.shares([-Infinity]), m.shares([]),"
        "[Math.log(2), -Math.log(4), 0, 20, -20].map(m.change)]; }"
    )
    e = math.exp(-1)
    assert found[0] == pytest.approx([1 / (1 + e), e / (1 + e), None])
    assert found[1] == pytest.approx([1 / (1 + e), e / (1 + e)])
    assert found[2:4] == [[None], []]
    assert found[4] == ["2.00 × as likely", "4.00 × less likely", "the same", "log +20.0", "log −20.0"]


@pytest.mark.page
def test_axe_finds_no_fault(view: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    view.locator(".heat .token").nth(5).click()
    view.get_by_role("button", name="Delete").click()
    row(view, 1)
    for scheme in ("light", "dark"):
        view.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(view)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
