"""Tests writing one token at a time, going on from the cursor, and filling in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from decodery import LLM, GenerationParams
from decodery.serving.page.page_files import ASSETS
from tests.cli.conftest import write_coder
from tests.serving.live import LiveServer, serving
from tests.serving.page.branching import accessible, ended, give_seed, kept, run_of, show_tree

PARAMS = GenerationParams(max_tokens=40, temperature=0.8, seed=7)
# Not the end, after which nothing is offered.
OTHER = '.candidate:not(.drawn):not([data-token-id="256"])'


def begin(page: Any) -> Any:
    """Opens the panel of steps for the prompt, and returns it."""
    page.get_by_role("button", name="One token at a time").first.click()
    steps = page.get_by_role("region", name="One token at a time")
    steps.locator(".candidate").first.wait_for()
    assert steps.get_by_text("You choose each token").is_visible()
    return steps


def after(page: Any, count: int) -> None:
    """Waits until so many tokens are there and the next candidates are shown."""
    page.wait_for_selector(f'#log [data-i="{count - 1}"]', state="attached")
    page.wait_for_selector(".stepper .candidate")


def test_the_drawn_token_taken_again_and_again_is_the_text_that_is_drawn(opened: Any, library: LLM) -> None:
    [output] = library.generate("Once upon a time", PARAMS.replace(seed=7))
    give_seed(opened, 7)
    steps = begin(opened)
    for count in range(1, 6):
        steps.get_by_role("button", name="Take the drawn one").click()
        after(opened, count)
    assert run_of(opened)["tokens"] == output.completions[0].token_ids[:5]
    assert accessible(opened)


@pytest.mark.page
def test_a_picked_and_a_typed_token_change_what_comes_next(opened: Any, library: LLM) -> None:
    steps = begin(opened)
    picked = int(steps.locator(OTHER).first.get_attribute("data-token-id"))
    steps.locator(OTHER).first.click()
    after(opened, 1)
    steps.get_by_label("Or type what comes next").fill("né")
    steps.get_by_role("button", name="Add").click()
    after(opened, 4)
    run = run_of(opened)
    assert run["tokens"] == [picked, *library.tokenizer.encode("né")]
    assert run["picked"] == [True] * 4
    assert opened.locator('#log [data-i="3"]').inner_text().startswith("é")
    ids = [*library.tokenizer.encode("Once upon a time"), *run["tokens"]]
    params = PARAMS.replace(seed=run["seed"])
    expected = next_token(library, ids, params, 4)
    drawn = int(steps.locator(".candidate.drawn").get_attribute("data-token-id"))
    assert drawn == expected
    steps.get_by_role("button", name="Undo").click()
    after(opened, 1)
    assert run_of(opened)["tokens"] == [picked]


def next_token(llm: LLM, ids: list[int], params: GenerationParams, generated: int) -> int:
    """Returns the token that follows ids of which the last ones are generated."""
    request = llm.intake.prepare(ids, params, generated=generated).add_with(llm.engine.add)
    while True:
        for event in llm.engine.step():
            llm.engine.abort(request)
            return event.tokens[0]


@pytest.mark.page
def test_steps_go_on_from_a_token_of_a_text_and_the_text_stays(opened: Any) -> None:
    first = run_of(opened)
    opened.locator('#log [data-i="6"]').click()
    opened.get_by_role("button", name="One at a time from here").click()
    after(opened, 6)
    steps = opened.get_by_role("region", name="One token at a time")
    # The seed and the place are those of the text: so is what is drawn.
    drawn = int(steps.locator(".candidate.drawn").get_attribute("data-token-id"))
    assert drawn == first["tokens"][6]
    steps.get_by_role("button", name="Take the drawn one").click()
    after(opened, 7)
    steps.get_by_role("button", name="Close").click()
    show_tree(opened).get_by_role("button", name="Once upon a time").click()
    assert run_of(opened)["id"] == first["id"]


@pytest.mark.page
def test_the_text_is_written_from_the_cursor(opened: Any, library: LLM) -> None:
    field = opened.get_by_role("textbox", name="Prompt")
    field.fill("Hello there, world")
    field.evaluate("field => field.setSelectionRange(5, 5)")
    field.dispatch_event("select")
    before = run_of(opened)
    opened.get_by_role("button", name="Write from the cursor").click()
    opened.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{before["id"]}"])')
    assert run_of(opened)["prompt"] == library.tokenizer.encode("Hello")


@pytest.mark.page
def test_filling_in_is_hidden_where_the_model_cannot(opened: Any) -> None:
    assert not opened.get_by_role("button", name="Fill in at the cursor").is_visible()


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    coder = LLM(write_coder(tmp_path_factory.mktemp("coder")), dtype="float32", kv_memory="16MB")
    with serving(coder) as found:
        yield found


@pytest.mark.page
def test_a_text_is_filled_in_at_the_cursor(page: Any, filling: LiveServer) -> None:
    page.goto(filling.url)
    ended(page)
    field = page.get_by_role("textbox", name="Prompt")
    field.fill("a = ; return a")
    field.evaluate("field => field.setSelectionRange(4, 4)")
    before = run_of(page)
    page.get_by_role("button", name="Fill in at the cursor").click()
    page.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{before["id"]}"])')
    expected, ends = filling.llm.intake.infill_prompt("a = ", "; return a")
    run = run_of(page)
    assert run["prompt"] == expected
    assert set(ends) <= set(run["params"]["stop_token_ids"])


@pytest.mark.page
def test_a_text_of_steps_is_kept_and_goes_on_when_the_panel_is_closed(opened: Any, library: LLM) -> None:
    steps = begin(opened)
    steps.locator(OTHER).nth(1).click()
    after(opened, 1)
    steps.get_by_label("Or type what comes next").fill("ab")
    steps.get_by_role("button", name="Add").click()
    after(opened, 3)
    steps.get_by_role("button", name="Close").click()
    run = run_of(opened)
    kept(opened, run["id"], len(run["tokens"]))
    opened.reload()
    opened.wait_for_selector(f'#log .run[data-run="{run["id"]}"]')
    again = run_of(opened)
    assert (again["tokens"], again["picked"]) == (run["tokens"], [True] * 3)
    assert again["choices"] == run["choices"]
    code = "async (id) => {\n"
    code += "  const { Store } = await import('/assets/core/store.js');\n"
    code += "  const { toJson } = await import('/assets/core/run_json.js');\n"
    code += "  return toJson((await new Store().load()).find((run) => run.id === id));\n}"
    exported = opened.evaluate(code, run["id"])
    jsonschema.validate(exported, json.loads((ASSETS / "core/run_schema.json").read_text()))
    ids = [*library.tokenizer.encode("Once upon a time"), *run["tokens"]]
    drawn = next_token(library, ids, PARAMS.replace(seed=run["seed"]), 3)
    opened.locator('#log [data-i="2"]').click()
    opened.get_by_role("button", name="Write on at the end").click()
    opened.wait_for_selector(f'#log .run[data-state=done]:not([data-run="{run["id"]}"])')
    assert run_of(opened)["tokens"][:4] == [*run["tokens"], drawn]


@pytest.mark.page
def test_a_text_of_steps_is_there_after_a_reload_in_the_middle_and_steps_taken_back_are_gone(
    opened: Any,
) -> None:
    steps = begin(opened)
    for count in range(1, 4):
        steps.locator(OTHER).first.click()
        after(opened, count)
    steps.get_by_role("button", name="Undo").click()
    opened.wait_for_selector('#log [data-i="2"]', state="detached")
    opened.wait_for_selector(".stepper .candidate")
    run = run_of(opened)
    kept(opened, run["id"], len(run["tokens"]))
    opened.reload()
    opened.wait_for_selector(f'#log .run[data-run="{run["id"]}"]')
    again = run_of(opened)
    assert (again["tokens"], again["picked"], again["choices"]) == (run["tokens"], [True] * 2, run["choices"])


@pytest.mark.page
def test_a_text_of_which_every_step_was_taken_back_is_not_kept(opened: Any) -> None:
    steps = begin(opened)
    steps.locator(OTHER).first.click()
    after(opened, 1)
    run = run_of(opened)
    kept(opened, run["id"], 1)
    steps.get_by_role("button", name="Undo").click()
    opened.wait_for_selector(".stepper .candidate")
    kept(opened, run["id"], 0)
    opened.reload()
    opened.wait_for_selector("[data-state=done]")
    code = (
        "async () => (await new (await import('/assets/core/store.js')).Store().load()).map((run) => run.id)"
    )
    assert run["id"] not in opened.evaluate(code)
