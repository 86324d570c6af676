"""Tests the inspector's sliders: what they show is what the server would compute and draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.trace import Considered
from tests.serving.live import LiveServer
from tests.serving.page.conftest import Watch
from tests.serving.page.mounting import open_blank, run_in
from tests.serving.page.test_inspector import MOUNT, PROMPT, SHOW, considered, near

# Every position of the run, re-shaped with each of some values, by logits that are fetched as the page does.
RESHAPED = """async (each) => {
  const { drawKeyOf, fetchLogits } = await import("/assets/core/position_logits.js");
  const { Reshaper } = await import("/assets/parts/sliders.js");
  const found = [];
  for (const run of window.runs) for (const stream of run.streams) {
    for (const index of stream.positions.keys()) {
      const logits = await fetchLogits(window.app.api, run, stream, index);
      const reshaper = new Reshaper(logits, run.params, drawKeyOf(run, stream, index));
      found.push(each.map((values) => {
        const { rows, kept, choice } = reshaper.shape(values);
        return { rows, kept, choice };
      }));
    }
  }
  return found;
}"""
NEUTRAL = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
WHAT_IF = """() => ({
  drawn: document.querySelector(".drawn").textContent,
  rows: [...document.querySelectorAll(".what-if tbody tr")].map(
    (row) => [...row.children].map((cell) => cell.textContent)),
  why: [...document.querySelectorAll(".why")].map((why) => why.textContent),
  note: document.querySelector(".what-if .dim").textContent,
})"""


@pytest.fixture(scope="module")
def blank(browser: Any, server: LiveServer) -> Iterator[Any]:
    """Returns an empty document with an inspector, which these tests share; `asked` is what it asked."""
    watch = Watch()
    watch.allowed.append("ERR_FAILED")
    context = browser.new_context(viewport={"width": 1000, "height": 3000})
    context.set_default_timeout(60_000)
    page = context.new_page()
    watch.listen(page)
    page.asked = []
    page.on("request", lambda request: page.asked.append((request.url, request.post_data)))
    open_blank(page, server.url)
    page.evaluate(MOUNT)
    yield page
    context.close()
    watch.check()


def show(page: Any, index: int, *, preview: bool = False) -> None:
    page.evaluate(SHOW, {"index": index, "preview": preview})
    if not preview:
        page.wait_for_selector(".what-if tbody tr")


def put(page: Any, **values: float) -> None:
    for name, value in values.items():
        page.get_by_label(f"{name.replace('_', '-')}, exactly").fill(str(value))


def asked_for_logits(page: Any) -> int:
    return sum(url.endswith("/trace") and '"logits":true' in (body or "") for url, body in page.asked)


VALUES: tuple[dict[str, float], ...] = (
    {"temperature": 0.4},
    {"temperature": 1.7, "top_k": 12},
    {"top_p": 0.35},
    {"temperature": 1.2, "min_p": 0.1, "top_k": 40, "top_p": 0.9},
    {"temperature": 0},
)
RUNS: dict[str, dict[str, Any]] = {
    "sampled": {"temperature": 0.8, "top_p": 0.95},
    "penalties": {"temperature": 0.8, "frequency_penalty": 0.6, "repetition_penalty": 1.2, "top_k": 30},
    "a grammar": {"grammar": {"type": "regex", "pattern": "[a-z]{6}[0-9a-z]{30}"}},
    "streams": {"n": 3, "temperature": 0.9},
    "greedy": {"temperature": 0},
    "more tokens at least than there are before": {"temperature": 0.9, "min_tokens": 6, "ignore_eos": False},
    "min_p first": {
        "min_p": 0.02,
        "processor_order": ["min_p", *(name for name in DEFAULT_ORDER if name != "min_p")],
    },
}


SHORT = ("sampled", "penalties")
EACH = [
    pytest.param(params, id=name, marks=() if name in SHORT else pytest.mark.page)
    for name, params in RUNS.items()
]


@pytest.mark.parametrize("params", EACH)
def test_a_real_runs_positions_are_reshaped_as_the_library_would(
    blank: Any, library: LLM, params: dict[str, Any]
) -> None:
    params = {"max_tokens": 6, "ignore_eos": True, "seed": 41, **params}
    run_in(blank, PROMPT, **params)
    own = {name: params.get(name, value) for name, value in NEUTRAL.items()}
    each = [own, *(own | values for values in VALUES)]
    found = blank.evaluate(RESHAPED, each)
    taken = blank.evaluate("() => window.runs[0].streams.flatMap(({ tokens }) => tokens)")
    assert len(found) == len(taken) == 6 * params.get("n", 1)
    for (as_it_was, *_), token in zip(found, taken, strict=True):
        assert as_it_was["choice"]["token"] == token or as_it_was["choice"]["undecided"]
    # The first position of the first stream has the same text before it for all values.
    for values, shaped in zip(each, found[0], strict=True):
        [choice, *_] = considered(library, candidates=259, **params | values)
        check_shaped(shaped, choice)


def check_shaped(shaped: dict[str, Any], choice: Considered) -> None:
    after = {candidate.token: candidate for candidate in choice.candidates}
    for row in shaped["rows"]:
        assert row["share"] == pytest.approx(after[row["token"]].after, abs=1e-5)
        assert row["model"] == pytest.approx(after[row["token"]].before, abs=1e-5)
        assert (row["cutBy"] is None) == (after[row["token"]].after > 0)
    assert shaped["kept"] == choice.kept or choice.draw_key is None
    assert shaped["choice"]["token"] == choice.token or shaped["choice"]["undecided"]


@pytest.mark.page
def test_the_sliders_begin_with_the_runs_values_and_show_what_others_give(blank: Any, library: LLM) -> None:
    params = {"max_tokens": 5, "ignore_eos": True, "seed": 12, "temperature": 0.7, "top_k": 50}
    run_in(blank, PROMPT, **params)
    show(blank, 0)
    assert blank.get_by_role("slider", name="temperature").input_value() == "0.7"
    assert blank.get_by_label("top-k, exactly").input_value() == "50"
    assert blank.evaluate(WHAT_IF)["drawn"].startswith("The same token would be drawn")
    put(blank, temperature=1.9, min_p=0.02, top_k=0)
    told = blank.evaluate(WHAT_IF)
    changed = params | {"temperature": 1.9, "min_p": 0.02, "top_k": 0}
    [choice, *_] = considered(library, candidates=259, **changed)
    after = {candidate.token: candidate.after for candidate in choice.candidates}
    tokens = [c.token for c in choice.candidates[: len(told["rows"])]]
    for token, (_, _, share) in zip(tokens, told["rows"][:10], strict=False):
        assert near(share, after[token]) if after[token] else share == "cut by min-p"
    blank.get_by_role("button", name="Back to the run's values").click()
    assert blank.get_by_role("slider", name="temperature").input_value() == "0.7"
    assert blank.evaluate(WHAT_IF)["drawn"].startswith("The same token would be drawn")


KEYS = """async () => {
  const { drawKeyOf } = await import("/assets/core/position_logits.js");
  return window.runs.flatMap((run) => run.streams.map((stream) =>
    stream.positions.map((_, index) => drawKeyOf(run, stream, index))));
}"""
TOLD_KEYS = """() => window.runs[0].streams.map(
  ({ positions }) => positions.map(({ choice }) => choice.draw_key))"""


@pytest.mark.page
@pytest.mark.parametrize("several", [{}, {"n": 3}, {"best_of": 3}], ids=str)
def test_a_greedy_runs_noise_is_that_of_a_drawn_run_with_its_seed(
    blank: Any, several: dict[str, Any]
) -> None:
    params = {"max_tokens": 5, "ignore_eos": True, "seed": 2**40 + 5, **several}
    run_in(blank, PROMPT, **params, temperature=1)
    told = blank.evaluate(TOLD_KEYS)
    run_in(blank, PROMPT, **params, temperature=0)
    found = blank.evaluate(KEYS)
    assert found == told


@pytest.mark.page
def test_a_greedy_run_shows_what_its_seed_would_have_drawn(blank: Any, library: LLM) -> None:
    params = {"max_tokens": 4, "ignore_eos": True, "seed": 12, "temperature": 0}
    run_in(blank, PROMPT, **params)
    [first, *_] = blank.evaluate(RESHAPED, [NEUTRAL])
    [choice, *_] = considered(library, candidates=259, **params | {"temperature": 1})
    assert first[0]["choice"]["token"] == choice.token
    show(blank, 0)
    put(blank, temperature=1)
    assert " token would be drawn: " in blank.evaluate(WHAT_IF)["drawn"]


@pytest.mark.page
def test_a_seed_that_the_page_cannot_hold_gives_no_guess(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=2, ignore_eos=True, seed=1, temperature=0)
    blank.evaluate("() => { window.runs[0].seed = 2 ** 60; }")
    assert blank.evaluate(KEYS) == [[None, None]]


ADJUSTED = """async () => {
  const { fetchLogits } = await import("/assets/core/position_logits.js");
  const [run] = window.runs;
  const [stream] = run.streams;
  const found = [];
  for (const index of stream.positions.keys()) {
    const { adjusted } = await fetchLogits(window.app.api, run, stream, index);
    found.push(adjusted.reduce((count, logit) => count + (logit === -Infinity), 0));
  }
  return found;
}"""


@pytest.mark.page
def test_end_tokens_are_banned_at_the_same_places_as_in_the_run(blank: Any, library: LLM) -> None:
    run_in(blank, PROMPT, max_tokens=12, min_tokens=8, seed=5, temperature=1, logit_bias={"97": 30.0})
    banned = blank.evaluate(ADJUSTED)
    ends = len(library.tokenizer.eos_token_ids)
    assert banned == [ends] * 8 + [0] * 4


def test_a_slider_that_changes_nothing_says_why(blank: Any) -> None:
    order = ["min_p", *(name for name in DEFAULT_ORDER if name != "min_p")]
    run_in(blank, PROMPT, max_tokens=3, seed=1, logit_bias={"97": 30.0}, min_p=0.05, processor_order=order)
    show(blank, 1)
    put(blank, temperature=100, min_p=0.05)
    temperature, top_k, top_p, min_p = blank.evaluate(WHAT_IF)["why"]
    assert temperature == "", "the bias comes after min-p here, so several candidates are left"
    run_in(blank, PROMPT, max_tokens=3, seed=1, logit_bias={"97": 30.0}, min_p=0.05)
    show(blank, 1)
    put(blank, temperature=0.5, top_k=20, top_p=0.9)
    temperature, top_k, top_p, min_p = blank.evaluate(WHAT_IF)["why"]
    assert temperature.endswith("1 candidate left, which any temperature gives 100 %.")
    assert "top-p comes later" in top_k
    assert top_p == "" or "min-p" in top_p
    assert "comes first: 1 candidate left" in min_p


WHY = """async (cases) => {
  const { Distribution, reshape } = await import("/assets/core/reshape.js");
  const { whyNothing } = await import("/assets/core/reasons.js");
  return cases.map(({ logits, params, order }) => {
    const shape = reshape(new Distribution(Float32Array.from(logits)), params, order);
    return Object.fromEntries(whyNothing(shape, params, order));
  });
}"""
LOGITS = [5.0, 2.0, 1.0, 0.0]
MIN_P_FIRST = ["min_p", "temperature", "top_k", "top_p"]
IN_ORDER = ["temperature", "top_k", "top_p", "min_p"]
REASONS: dict[str, tuple[dict[str, float], list[str], dict[str, str]]] = {
    "neutral values": ({}, IN_ORDER, {}),
    "min-p first": (
        {"temperature": 100, "min_p": 0.06},
        MIN_P_FIRST,
        {"temperature": "min-p comes first: 1 candidate left"},
    ),
    "a later cut": (
        {"temperature": 0.5, "top_k": 1},
        IN_ORDER,
        {"temperature": "top-k comes later: 1 candidate left, which any temperature gives 100 %"},
    ),
    "greedy": (
        {"temperature": 0, "top_k": 3},
        IN_ORDER,
        {"top_k": "temperature 0 takes the likeliest token, whatever is cut"},
    ),
    "a large top-k": ({"top_k": 9}, IN_ORDER, {"top_k": "only 4 candidates are left before it"}),
    "a high top-p": (
        {"top_p": 0.9999},
        IN_ORDER,
        {"top_p": "it takes all of the 4 candidates left to reach 100 %"},
    ),
    "a low min-p": (
        {"min_p": 0.001},
        IN_ORDER,
        {"min_p": "each of the 4 candidates left has at least 0.1 % of the best one's probability"},
    ),
    "a stricter later cut": (
        {"top_k": 3, "min_p": 0.04},
        IN_ORDER,
        {"top_k": "min-p comes later, and leaves the same 2 candidates"},
    ),
    "changes all": ({"temperature": 0.5, "top_k": 3}, IN_ORDER, {}),
}


@pytest.mark.page
def test_the_reasons_name_the_stage_that_decides(blank: Any) -> None:
    cases = [{"logits": LOGITS, "params": NEUTRAL | p, "order": order} for p, order, _ in REASONS.values()]
    found = blank.evaluate(WHY, cases)
    assert dict(zip(REASONS, found, strict=True)) == {name: why for name, (_, _, why) in REASONS.items()}


@pytest.mark.page
@pytest.mark.parametrize(
    "extra",
    [
        {"typical_p": 0.7},
        pytest.param({"top_n_sigma": 1.5}, marks=pytest.mark.page),
        pytest.param({"dynatemp_range": 0.3}, marks=pytest.mark.page),
    ],
)
def test_the_server_answers_where_the_page_does_not_know_a_stage(
    blank: Any, library: LLM, extra: dict[str, Any]
) -> None:
    params = {"max_tokens": 4, "ignore_eos": True, "seed": 3, "temperature": 0.9, **extra}
    run_in(blank, PROMPT, **params)
    before = asked_for_logits(blank)
    show(blank, 0)
    assert "The server answers" in blank.evaluate(WHAT_IF)["note"]
    blank.locator(".drawn", has_text="The same token").wait_for()
    put(blank, temperature=0.3, top_k=5)
    blank.locator(".cuts", has_text="top-k").wait_for()
    [choice, *_] = considered(library, **params | {"temperature": 0.3, "top_k": 5})
    told = blank.evaluate(WHAT_IF)
    for candidate, (_, model, share) in zip(choice.candidates, told["rows"], strict=True):
        assert near(model, candidate.before)
        assert near(share, candidate.after) if candidate.after else share.startswith("cut by")
    assert asked_for_logits(blank) == before


@pytest.mark.page
def test_logits_are_fetched_for_an_open_position_alone(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=12, ignore_eos=True, seed=3)
    before = asked_for_logits(blank)
    for index in range(10):
        show(blank, index, preview=True)
    blank.wait_for_timeout(300)
    assert asked_for_logits(blank) == before
    blank.evaluate(
        """() => { for (let index = 0; index < 10; index++) {
          window.inspector.show(window.runs[0], window.runs[0].streams[0], index);
        } }"""
    )
    blank.wait_for_selector(".what-if tbody tr")
    assert asked_for_logits(blank) == before + 1, "positions that are passed quickly are not fetched"
    show(blank, 9)
    assert asked_for_logits(blank) == before + 1
    body = next(body for url, body in reversed(blank.asked) if url.endswith("/trace"))
    assert '"generated":9' in body


# Resolves when the page has noticed what is in view now.
MOVE = """async (padding) => {
  document.querySelector("main").style.paddingTop = padding;
  scrollTo(0, 0);
  await new Promise((noticed) => {
    const observer = new IntersectionObserver(() => { observer.disconnect(); noticed(); });
    const what = document.querySelector(".what-if");
    requestAnimationFrame(() => requestAnimationFrame(() => observer.observe(what)));
  });
}"""


@pytest.mark.page
def test_sliders_out_of_view_ask_for_nothing_until_they_are_seen(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=4, ignore_eos=True, seed=3)
    before = asked_for_logits(blank)
    blank.evaluate(MOVE, "4000px")
    blank.evaluate(SHOW, {"index": 2, "preview": False})
    blank.wait_for_timeout(400)
    assert asked_for_logits(blank) == before
    blank.locator(".what-if").scroll_into_view_if_needed()
    blank.wait_for_selector(".what-if tbody tr")
    assert asked_for_logits(blank) == before + 1
    blank.evaluate(MOVE, "")


@pytest.mark.page
def test_the_server_being_away_is_said_and_the_rest_stays(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=4, ignore_eos=True, seed=3)
    blank.route("**/trace", lambda route: route.abort())
    blank.evaluate(SHOW, {"index": 2, "preview": False})
    blank.locator(".what-if .dim", has_text="cannot be reached").wait_for()
    assert blank.locator(".candidates-part tbody tr").count() >= 10
    blank.unroute("**/trace")
    show(blank, 2)
    assert blank.evaluate(WHAT_IF)["note"] == "", "the same token asks again after a failure"


@pytest.mark.page
def test_a_models_defaults_do_not_take_the_place_of_a_runs_values(blank: Any, server: LiveServer) -> None:
    before = server.llm.default_params
    server.llm.default_params = GenerationParams(temperature=0.3, top_k=3, repetition_penalty=1.9)
    try:
        blank.evaluate("async () => await window.app.models.load()")
        given = {"temperature": 1, "top_k": 0, "repetition_penalty": 1}
        run_in(blank, PROMPT, max_tokens=4, ignore_eos=True, seed=3, **given)
        [*_, [last]] = blank.evaluate(RESHAPED, [NEUTRAL])
        assert last["kept"] == 259
        assert [row["share"] for row in last["rows"]] == [row["model"] for row in last["rows"]]
    finally:
        server.llm.default_params = before
        blank.evaluate("async () => await window.app.models.load()")


@pytest.mark.page
def test_another_model_of_the_same_name_is_noticed(blank: Any) -> None:
    run_in(blank, PROMPT, max_tokens=4, ignore_eos=True, seed=3)
    blank.evaluate(
        "() => { for (const c of window.runs[0].streams[0].positions[2].choice.candidates) c.logit += 1; }"
    )
    blank.evaluate(SHOW, {"index": 2, "preview": False})
    blank.locator(".what-if .dim", has_text="not the one").wait_for()
