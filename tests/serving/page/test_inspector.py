"""Tests what the inspector shows of a position against what the library says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from decodery.decoding.event import Event
from decodery.decoding.request.plain import params_from_plain
from decodery.decoding.trace import Candidate, Considered
from tests.serving.live import LiveServer
from tests.serving.page.conftest import Watch
from tests.serving.page.mounting import open_blank, run_in

PROMPT = "Once upon a time"
MOUNT = """async () => {
  const { mountInspector } = await import("/assets/parts/inspector.js");
  const place = document.querySelector("main");
  window.branches = [];
  place.addEventListener("branch", ({ detail }) => window.branches.push([detail.index, detail.token]));
  window.inspector = mountInspector(place, window.app);
}"""
SHOW = """({ index, preview }) => {
  const [run] = window.runs;
  window.inspector.show(run, run.streams[0], index, { preview });
}"""
READ = """() => {
  const texts = (selector, within = document) =>
    [...within.querySelectorAll(selector)].map((found) => found.textContent);
  window.read = () => ({
    heads: texts(".candidates-part thead th"),
    rows: [...document.querySelectorAll(".candidates-part tbody tr")].map((row) => ({
      token: Number(row.querySelector("[data-token-id]").dataset.tokenId),
      cells: texts("td", row),
      kind: row.className,
    })),
    facts: Object.fromEntries([...document.querySelectorAll(".facts > div")].map(
      (fact) => [texts("dt", fact)[0], texts("dd", fact)[0]])),
  });
}"""
TABLE = "() => window.read().rows"
HEADS = "() => window.read().heads"
FACTS = "() => window.read().facts"
ALL = """() => {
  const [run] = window.runs;
  return run.streams[0].positions.map((_, index) => {
    window.inspector.show(run, run.streams[0], index, { preview: true });
    return window.read();
  });
}"""


@pytest.fixture(scope="module")
def blank(browser: Any, server: LiveServer) -> Iterator[Any]:
    """Returns an empty document with an inspector, which these tests share."""
    watch = Watch()
    context = browser.new_context(viewport={"width": 1000, "height": 3000})
    page = context.new_page()
    watch.listen(page)
    open_blank(page, server.url)
    page.evaluate(MOUNT)
    page.evaluate(READ)
    yield page
    context.close()
    watch.check()


def considered(library: LLM, prompt: str = PROMPT, candidates: int = 10, **params: Any) -> list[Considered]:
    """Returns the library's own choices for the first completion."""
    events: list[Event] = []
    library.generate(
        prompt,
        params_from_plain(params, library.default_params),
        observer=events.append,
        candidates=candidates,
    )
    return [choice for event in events if not event.stream for choice in event.considered]


def near(told: str, share: float) -> bool:
    """True if a percentage is the share, rounded to at least two digits."""
    if told in ("0 %", "100 %"):
        return share == float(told[:-2]) / 100
    if told[0] in "<>":
        return share > 0.999 if told[0] == ">" else 0 < share < 1e-6
    return math.isclose(float(told[:-2]) / 100, share, rel_tol=0.06)


CASES: dict[str, dict[str, Any]] = {
    "sampled": {"temperature": 0.7},
    "greedy": {"temperature": 0},
    "truncated": {"temperature": 0.9, "top_k": 8, "min_p": 0.05},
    "penalties": {"repetition_penalty": 1.4, "temperature": 0.8, "top_p": 0.6},
    "penalties, greedy": {"repetition_penalty": 1.4, "temperature": 0, "top_k": 3},
    "a grammar": {"grammar": {"type": "regex", "pattern": "[a-f]{8}0[a-f0-9]{20}"}, "temperature": 0.7},
    "bans": {"suppress_tokens": [101, 102, 103], "logit_bias": {"97": 2.5}, "top_p": 0.9},
}


# By whether a stage of truncation cut a token.
LAST_COLUMNS = {True: "after truncation", False: "after all stages: nothing truncated"}
EACH = [
    pytest.param(params, id=name, marks=() if name == "truncated" else pytest.mark.page)
    for name, params in CASES.items()
]


@pytest.mark.parametrize("params", EACH)
def test_each_position_shows_its_own_candidates_under_the_right_names(
    blank: Any, library: LLM, params: dict[str, Any]
) -> None:
    asked = {"max_tokens": 20, "ignore_eos": True, "seed": 11, **params}
    run_in(blank, PROMPT, **asked)
    choices = considered(library, **asked)
    assert len(choices) == 20
    for choice, told in zip(choices, blank.evaluate(ALL), strict=True):
        rows = told["rows"]
        assert [row["token"] for row in rows] == [c.token for c in choice.candidates]
        columns = expected_columns(choice, library.tokenizer.vocab_size)
        assert told["heads"][1 : len(columns) + 1] == list(columns)
        for place, row in enumerate(rows):
            candidate = choice.candidates[place]
            assert ("taken" in row["kind"]) == (candidate.token == choice.token)
            for name, cell in zip(columns, row["cells"], strict=False):
                check_cell(cell, columns[name][place], cut=name in LAST_COLUMNS.values())
            if choice.draw_key is not None and candidate.after > 0:
                check_sum(row["cells"][-1], candidate)
        check_facts(told["facts"], choice)


def expected_columns(choice: Considered, vocab_size: int) -> dict[str, list[float]]:
    """Returns the probabilities that the columns must show."""
    columns = {"model": [c.before for c in choice.candidates]}
    shaping = ("temperature", "top_k", "top_p", "min_p")
    early = [stage for stage in choice.stages if stage.name not in shaping]
    if early:
        columns["after penalties"] = list(early[-1].probabilities)
    before = [vocab_size, *(stage.kept for stage in choice.stages)]
    cut = {stage.name for stage, count in zip(choice.stages, before, strict=False) if stage.kept < count}
    last = LAST_COLUMNS[not cut.isdisjoint(("top_k", "top_p", "min_p"))]
    return columns | {last: [c.after for c in choice.candidates]}


def check_cell(told: str, share: float, *, cut: bool) -> None:
    if cut and share == 0:
        assert told.startswith("cut by ")
    else:
        assert near(told, share), (told, share)


def check_sum(told: str, candidate: Candidate) -> None:
    assert candidate.noise is not None
    value = math.log(candidate.after) + candidate.noise
    assert float(told.replace("−", "-")) == pytest.approx(value, abs=0.0051)


def check_facts(facts: dict[str, str], choice: Considered) -> None:
    assert near(facts["probability (model)"], choice.before)
    assert near(facts["probability (after all stages)"], choice.after)
    surprise = -math.log2(choice.before)
    assert float(facts["surprise"].split()[0]) == pytest.approx(surprise, abs=0.0051)
    assert float(facts["entropy of all tokens"].split()[0]) == pytest.approx(choice.entropy, abs=0.0051)
    assert facts["rank"] == f"{choice.rank:,}"
    assert facts["tokens left"] == f"{choice.kept:,}"
    assert choice.tail is not None
    assert near(facts["probability of all other tokens (model)"], max(0.0, choice.tail))
    if choice.allowed is not None:
        assert facts["allowed by the grammar"] == f"{choice.allowed:,}"


@pytest.mark.page
def test_a_stage_shows_the_probabilities_before_and_after_it_and_whom_it_cut(
    blank: Any, library: LLM
) -> None:
    asked = {"temperature": 0.6, "top_k": 6, "top_p": 0.5, "repetition_penalty": 1.3}
    bounded = {"max_tokens": 3, "seed": 2, "ignore_eos": True, **asked}
    run_in(blank, PROMPT, **bounded)
    choice = considered(library, **bounded)[2]
    blank.evaluate(SHOW, {"index": 2, "preview": True})
    before = [c.before for c in choice.candidates]
    for stage in choice.stages:
        name = {"top_k": "top-k", "top_p": "top-p"}.get(stage.name, stage.name.replace("_", " "))
        blank.locator(".chip", has_text=name).click()
        assert blank.evaluate(HEADS) == ["token", f"before {name}", f"after {name}", "change"]
        for row, old, new in zip(blank.evaluate(TABLE), before, stage.probabilities, strict=True):
            assert near(row["cells"][0], old)
            assert near(row["cells"][1], new)
            if new == 0:
                assert row["cells"][2] == ("cut" if old > 0 else "cut before")
            else:
                assert float(row["cells"][2].removeprefix("× ")) == pytest.approx(new / old, rel=0.01)
        before = list(stage.probabilities)
    assert {stage.name for stage in choice.stages} == set(asked)
    cut_by_k = sum(p == 0 for p in choice.stages[2].probabilities)
    blank.locator(".chip", has_text="all stages").click()
    cells = [row["cells"][2] for row in blank.evaluate(TABLE)]
    assert cells.count("cut by top-k") == cut_by_k > 0
    assert cells.count("cut by top-p") == sum(c.after == 0 for c in choice.candidates) - cut_by_k > 0


@pytest.mark.page
def test_stages_that_cut_nothing_say_so(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=1, seed=2, top_k=8, min_p=1e-9, temperature=1.5)
    blank.evaluate(SHOW, {"index": 0, "preview": True})
    chips = [tuple(chip.inner_text().split("\n")) for chip in blank.locator(".chip").all()]
    assert chips == [("all stages",), ("temperature",), ("top-k", "8 left")]
    assert blank.locator(".idle-stages").inner_text() == "Changed nothing here: min-p."
    assert "after truncation" in blank.evaluate(HEADS)
    # A bias changes logits and cuts nothing.
    run_in(blank, PROMPT, max_tokens=1, seed=2, logit_bias={"65": 2})
    blank.evaluate(SHOW, {"index": 0, "preview": True})
    assert blank.locator(".chip").all_inner_texts() == ["all stages", "logit bias"]
    assert blank.locator(".idle-stages").count() == 0
    assert "after all stages: nothing truncated" in blank.evaluate(HEADS)


@pytest.mark.page
def test_a_probability_of_one_is_100_percent_and_no_surprise(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=2, grammar={"type": "choice", "options": ["ab"]})
    blank.evaluate(SHOW, {"index": 0, "preview": True})
    assert blank.evaluate(FACTS)["probability (after all stages)"] == "100 %"
    assert "Forced" in blank.locator("header").inner_text()
    told = blank.evaluate(
        """async () => {
          const { viewOf } = await import("/assets/core/choice_view.js");
          const choice = { token: 5, before: 1, after: 1, rank: 1, entropy: 0, kept: 1, tail: 0,
                           candidates: [{ token: 5, before: 1, after: 1, logit: 3 }] };
          const view = viewOf({ choice, drafted: null }, { temperature: 0 });
          const { percent } = await import("/assets/core/figures.js");
          return [view.surprise, percent(view.before), percent(Math.exp(0)), percent(0)];
        }"""
    )
    assert told == [0, "100 %", "100 %", "0 %"]


@pytest.mark.page
def test_a_candidate_is_picked_by_pointer_and_keyboard(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=5, seed=1)
    blank.evaluate(SHOW, {"index": 3, "preview": True})
    tokens = [row["token"] for row in blank.evaluate(TABLE)]
    blank.locator(f"[data-token-id='{tokens[2]}']").first.click()
    blank.keyboard.press("ArrowDown")
    blank.keyboard.press("ArrowDown")
    blank.keyboard.press("ArrowUp")
    blank.keyboard.press("Enter")
    assert blank.evaluate("() => window.branches") == [[3, tokens[2]], [3, tokens[3]]]


@pytest.mark.page
def test_the_labels_of_candidates_are_their_bytes_made_visible(blank: Any, library: LLM) -> None:
    run_in(blank, PROMPT, candidates=259, max_tokens=1, seed=1)
    blank.evaluate(SHOW, {"index": 0, "preview": True})
    labels = blank.locator(".candidates-part tbody .token-label").all_inner_texts()
    assert len(labels) == 259
    assert "·" in labels
    assert "⏎" in labels
    assert "FF" in labels
    assert "<" in labels


@pytest.mark.page
def test_beams_have_no_choice_of_one_token_and_contrastive_search_no_sliders(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=4, strategy={"type": "beam_search", "num_beams": 3})
    blank.evaluate(SHOW, {"index": 1, "preview": False})
    assert "Beam search" in blank.locator("header").inner_text()
    assert blank.locator(".slider").first.is_hidden()
    run_in(blank, PROMPT, max_tokens=4, strategy={"type": "contrastive_search", "top_k": 4})
    blank.evaluate(SHOW, {"index": 1, "preview": False})
    assert "weighed" in blank.locator("header").inner_text()
    assert "contrastive search" in blank.locator(".what-if").inner_text()
    assert blank.locator(".slider").first.is_hidden()


@pytest.mark.page
def test_the_inspector_is_cleared(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=2)
    blank.evaluate(SHOW, {"index": 0, "preview": True})
    assert blank.locator(".inspector").is_visible()
    blank.evaluate("() => window.inspector.clear()")
    assert blank.locator(".inspector").is_hidden()


def test_the_defaults_of_a_run_are_read_from_its_params() -> None:
    assert GenerationParams().temperature == 1
    assert (GenerationParams().top_k, GenerationParams().top_p, GenerationParams().min_p) == (0, 1, 0)
