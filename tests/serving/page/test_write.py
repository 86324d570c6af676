"""Tests the view in which one writes: texts, conversations, parameters, and following a text as it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from tests.serving.conftest import CONTEXT
from tests.serving.live import LiveServer, until
from tests.serving.page.branching import ended, kept


@contextmanager
def paced(server: LiveServer, seconds: float) -> Iterator[None]:
    """Makes each step of the engine take this long."""
    engine = server.llm.engine
    step_into = engine.step_into

    def slow(events: Any) -> None:
        time.sleep(seconds)
        step_into(events)

    engine.step_into = slow  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.step_into = step_into  # type: ignore[method-assign]


def write(page: Any, prompt: str) -> None:
    """Writes a text; the one before must have ended."""
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    shown = page.locator(".run").last.get_attribute("data-run")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(f'.run:not([data-run="{shown}"])')


def set_parameter(page: Any, name: str, value: str) -> None:
    """Enters the value of a parameter in the form."""
    page.get_by_role("tab", name="Parameters").click()
    page.get_by_label("Find a parameter").fill(name)
    field = page.locator(f"#parameter-{name}")
    if field.evaluate("(e) => e.tagName") == "SELECT":
        field.select_option(value)
    elif field.get_attribute("type") == "checkbox":
        field.set_checked(value == "true")
    else:
        field.fill(value)
    page.get_by_label("Find a parameter").fill("")


def tokens_of(page: Any) -> int:
    found: int = page.locator(".run .token").count()
    return found


def test_opened_fresh_the_default_prompt_is_decoded_and_coloured_without_a_key_pressed(
    opened: Any, library: LLM
) -> None:
    [output] = library.generate("Once upon a time", GenerationParams(max_tokens=40, temperature=0.8, seed=7))
    completion = output.completions[0]
    assert tokens_of(opened) == len(completion.token_ids)
    for token in opened.locator(".run .token").all():
        classes = (token.get_attribute("class") or "").split()
        assert sum(name[0] == "s" and name[1:].isdigit() for name in classes) == 1
        assert sum(name[0] == "r" and name[1:].isdigit() for name in classes) == 1
    # The most surprising one is open, so that a first look shows what there is to see.
    assert opened.locator(".token.open").count() == 1


@pytest.mark.page
def test_enter_sends_shift_enter_does_not_and_the_setting_makes_it_control_enter(opened: Any) -> None:
    text = opened.get_by_role("textbox", name="Prompt")
    text.fill("Hello")
    text.press("Shift+Enter")
    assert text.input_value() == "Hello\n"
    first = opened.locator(".run").get_attribute("data-run")
    text.press("Enter")
    opened.wait_for_selector(f'.run[data-state=done]:not([data-run="{first}"])')
    opened.get_by_label("Send with").select_option("control")
    second = opened.locator(".run").get_attribute("data-run")
    text.fill("You")
    text.press("Enter")
    assert text.input_value() == "You\n"
    text.press("Control+Enter")
    opened.wait_for_selector(f'.run[data-state=done]:not([data-run="{second}"])')


def test_escape_stops_a_text_and_the_server_stops_too(opened: Any, server: LiveServer) -> None:
    set_parameter(opened, "max_tokens", "400")
    with paced(server, 0.02):
        write(opened, "Hello")
        opened.wait_for_selector(".run .token >> nth=3")
        opened.keyboard.press("Escape")
        opened.wait_for_selector(".run[data-state=cut]")
        until(server.is_idle)
    assert 3 < tokens_of(opened) < 400
    assert "Cut" in opened.locator(".standing").inner_text()


@pytest.mark.page
def test_the_progress_of_a_long_prompt_is_shown(opened: Any, server: LiveServer) -> None:
    with paced(server, 0.1):
        write(opened, "abcdefghij" * 60)
        bar = opened.wait_for_selector("progress.prefill:not([hidden])")
        assert bar.get_attribute("max") == "600"
        assert "of 600 tokens" in opened.locator(".standing").inner_text()
        opened.keyboard.press("Escape")


@pytest.mark.page
def test_several_texts_are_shown_one_after_another_with_how_each_ended(opened: Any) -> None:
    set_parameter(opened, "n", "3")
    write(opened, "Hello")
    ended(opened)
    assert opened.locator(".stream").count() == 3
    for ending in opened.locator(".ending").all():
        assert "tokens:" in ending.inner_text()


@pytest.mark.page
def test_colours_switch_between_surprise_and_the_share_of_the_best(opened: Any) -> None:
    colour = "(e) => getComputedStyle(e).backgroundColor"
    token = opened.locator(".token.s7, .token.s6").first
    clear = "rgba(0, 0, 0, 0)"
    assert token.evaluate(colour) != clear
    opened.get_by_label("Colour").select_option("none")
    assert token.evaluate(colour) == clear
    opened.get_by_label("Colour").select_option("relative")
    expected = opened.locator(".token.r0").first
    assert expected.evaluate(colour) == clear
    unlikely = opened.locator(".token.r3, .token.r4, .token.r5, .token.r6, .token.r7").first
    assert unlikely.evaluate(colour) != clear


@pytest.mark.page
def test_the_pointer_explains_a_token_until_that_is_switched_off(opened: Any) -> None:
    opened.locator(".what-if").wait_for(state="attached")
    place = opened.locator(".inspector h2 small")
    opened.locator(".token").nth(2).hover()
    assert place.inner_text().strip() == "token 3 of 40"
    opened.get_by_label("Explain tokens under the pointer").uncheck()
    opened.locator(".token").nth(5).hover()
    assert place.inner_text().strip() == "token 3 of 40"
    opened.locator(".token").nth(5).click()
    assert place.inner_text().strip() == "token 6 of 40"
    opened.reload()
    opened.wait_for_selector(".run[data-state=done]")
    assert not opened.get_by_label("Explain tokens under the pointer").is_checked()


@pytest.mark.page
def test_one_token_is_said_to_be_one(opened: Any) -> None:
    set_parameter(opened, "max_tokens", "1")
    write(opened, "a")
    ended(opened)
    said = opened.locator(".run").inner_text()
    assert "1 token:" in said
    assert "prompt of 1 token " in said


@pytest.mark.page
def test_arrow_keys_go_from_token_to_token_and_between_lines(opened: Any) -> None:
    first = opened.locator(".token").first
    first.focus()
    place = "document.activeElement.dataset.i"
    for key, expected in (("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("Home", "0")):
        opened.keyboard.press(key)
        assert opened.evaluate(place) == expected
    opened.keyboard.press("End")
    assert opened.evaluate(place) == str(tokens_of(opened) - 1)
    # One token is in the order of the Tab key, the one that was focused last.
    assert opened.locator('.token[tabindex="0"]').count() == 1


def long_in_a_low_window(page: Any) -> None:
    """Makes the texts longer than the window is high."""
    set_parameter(page, "max_tokens", "500")
    set_parameter(page, "ignore_eos", "true")
    page.set_viewport_size({"width": 1000, "height": 420})


# Returns the place of a scroller once it has moved no more for ten frames.
AT_REST = """async (scroller) => {
  let place = scroller.scrollTop;
  for (let frames = 0; frames < 10; frames += 1) {
    await new Promise(requestAnimationFrame);
    if (scroller.scrollTop !== place) [place, frames] = [scroller.scrollTop, 0];
  }
  return place;
}"""


@pytest.mark.page
def test_following_stops_at_once_when_the_reader_moves_and_stays_off_to_the_end(
    opened: Any, server: LiveServer
) -> None:
    log = opened.locator("#log")
    newest = opened.get_by_role("button", name="To the newest")
    at_end = "(e) => e.scrollHeight - e.scrollTop - e.clientHeight < 40"
    long_in_a_low_window(opened)
    with paced(server, 0.002):
        write(opened, "\n" * 30)
        opened.wait_for_selector(".run .token >> nth=120")
        assert log.evaluate(at_end)
        log.hover()
        opened.mouse.wheel(0, -20)
        newest.wait_for()
        place = log.evaluate(AT_REST)
        ended(opened)
        assert log.evaluate("(e) => e.scrollTop") == place
    newest.click()
    assert log.evaluate(at_end)
    assert newest.is_hidden()


@pytest.mark.page
@pytest.mark.parametrize("key", ["PageUp", "ArrowUp", "Shift+Space"])
def test_a_key_that_scrolls_stops_following(opened: Any, server: LiveServer, key: str) -> None:
    long_in_a_low_window(opened)
    with paced(server, 0.002):
        write(opened, "\n" * 30)
        opened.wait_for_selector(".run .token >> nth=120")
        opened.locator("#log").focus()
        opened.keyboard.press(key)
        opened.get_by_role("button", name="To the newest").wait_for()
        place = opened.locator("#log").evaluate(AT_REST)
        ended(opened)
        assert abs(opened.locator("#log").evaluate("(e) => e.scrollTop") - place) < 5


@pytest.mark.page
def test_the_error_of_the_server_stands_at_its_field(opened: Any, watch: Any) -> None:
    watch.allowed = ["400"]
    set_parameter(opened, "top_p", "1.5")
    write(opened, "Hello")
    opened.wait_for_selector(".run[data-state=failed]")
    row = opened.locator('[data-parameter="top_p"]')
    assert "top_p must be above 0 and at most 1" in row.locator(".wrong").inner_text()
    assert row.locator("input").get_attribute("aria-invalid") == "true"
    assert opened.evaluate("document.activeElement.id") == "parameter-top_p"


@pytest.mark.page
def test_a_value_that_is_none_is_told_before_it_is_sent(opened: Any) -> None:
    set_parameter(opened, "max_tokens", "many")
    opened.get_by_role("button", name="Write", exact=True).click()
    assert "is no number" in opened.locator('[data-parameter="max_tokens"] .wrong').inner_text()
    set_parameter(opened, "max_tokens", "9007199254740993")
    assert "exactly" in opened.locator('[data-parameter="max_tokens"] .wrong').inner_text()


@pytest.mark.page
def test_changed_parameters_come_first_and_a_search_finds_the_others(opened: Any) -> None:
    opened.get_by_role("tab", name="Parameters").click()
    shown = opened.locator("[data-parameter]")
    assert sorted(row.get_attribute("data-parameter") for row in shown.all()) == [
        "max_tokens",
        "seed",
        "temperature",
    ]
    opened.get_by_label("Find a parameter").fill("repetition")
    names = {row.get_attribute("data-parameter") for row in shown.all()}
    assert {"repetition_penalty", "dry_multiplier"} <= names
    assert "max_tokens" not in names
    opened.get_by_label("Find a parameter").fill("")
    opened.get_by_role("button", name="seed: back to the default").click()
    opened.get_by_role("tab", name="Runs").click()
    opened.get_by_role("tab", name="Parameters").click()
    first = opened.locator(".panel > .rows [data-parameter]")
    assert sorted(row.get_attribute("data-parameter") for row in first.all()) == ["max_tokens", "temperature"]


PRESETS = ["Precise", "Creative", "Beam", "Contrastive", "JSON", "DoLa", "Speculation"]


@pytest.mark.page
@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_accepted(opened: Any, name: str) -> None:
    opened.get_by_role("tab", name="Parameters").click()
    opened.get_by_role("button", name=name, exact=True).click()
    write(opened, "Hello, hello, hello")
    ended(opened)
    assert tokens_of(opened) > 0
    assert opened.locator(".wrong:visible").count() == 0


@pytest.mark.page
def test_objects_are_built_from_their_fields(opened: Any, server: LiveServer) -> None:
    set_parameter(opened, "strategy", "beam_search")
    opened.locator("#parameter-strategy-num_beams").fill("3")
    opened.locator("#parameter-strategy-num_return_sequences").fill("2")
    with opened.expect_request("**/trace") as sent:
        write(opened, "Hello")
    [request] = sent.value.post_data_json["requests"]
    assert request["params"]["strategy"] == {"type": "beam_search", "num_beams": 3, "num_return_sequences": 2}
    ended(opened)
    assert opened.locator(".stream").count() == 2


@pytest.mark.page
def test_a_choice_of_a_grammar_forces_the_text(opened: Any) -> None:
    set_parameter(opened, "grammar", "choice")
    opened.locator("#parameter-grammar-options").fill("a\\nb\na\\nb")
    write(opened, "Hello")
    ended(opened)
    assert opened.locator(".tokens").evaluate("(e) => e.textContent").startswith("a\nb")
    assert opened.locator(".token.forced").count() >= 3


def begins_a_run(request: Any) -> bool:
    """False for requests of the inspector, which ask for no texts."""
    return request.url.endswith("/trace") and '"texts":true' in (request.post_data or "")


def test_a_conversation_has_the_ids_of_the_servers_template_and_replies_token_by_token(
    opened: Any, server: LiveServer, library: LLM
) -> None:
    opened.get_by_label("Chat").check()
    opened.locator(".system summary").click()
    opened.get_by_role("textbox", name="System message").fill("S")
    said: list[dict[str, str]] = [{"role": "system", "content": "S"}]
    set_parameter(opened, "max_tokens", "8")
    for turn, text in enumerate(("Hi", "You")):
        said.append({"role": "user", "content": text})
        opened.get_by_role("textbox", name="Message", exact=True).fill(text)
        with opened.expect_request(begins_a_run) as sent:
            opened.get_by_role("button", name="Send", exact=True).click()
        [request] = sent.value.post_data_json["requests"]
        assert request["prompt"] == library.intake.chat_prompt(said)
        ended(opened, turn + 1)
        params = GenerationParams(max_tokens=8, temperature=0.8, seed=7)
        [output] = library.generate([request["prompt"]], params)
        assert opened.locator(".run").nth(turn).locator(".token").count() == len(
            output.completions[0].token_ids
        )
        said.append({"role": "assistant", "content": output.completions[0].text})


@pytest.mark.page
def test_after_a_reload_the_conversation_and_the_parameters_are_there(opened: Any) -> None:
    opened.get_by_label("Chat").check()
    set_parameter(opened, "max_tokens", "6")
    set_parameter(opened, "min_p", "0.01")
    for turn, text in enumerate(("Hi <b>", "You")):
        opened.get_by_role("textbox", name="Message", exact=True).fill(text)
        opened.keyboard.press("Enter")
        ended(opened, turn + 1)
    shown = "[...document.querySelectorAll('.message .body, .run .tokens')].map((e) => e.textContent)"
    before = opened.evaluate(shown)
    last = opened.locator(".run").last
    kept(opened, last.get_attribute("data-run"), last.locator(".token").count())
    opened.reload()
    ended(opened, 2)
    assert opened.evaluate(shown) == before
    assert before[0] == "Hi <b>"
    assert opened.get_by_label("Chat").is_checked()
    opened.get_by_role("tab", name="Parameters").click()
    assert opened.locator("#parameter-min_p").input_value() == "0.01"


@pytest.mark.page
def test_a_conversation_that_the_server_refuses_gives_the_message_back(
    opened: Any, server: LiveServer, watch: Any
) -> None:
    watch.allowed = ["400"]
    opened.get_by_label("Chat").check()
    text = opened.get_by_role("textbox", name="Message", exact=True)
    text.fill("x" * (CONTEXT + 10))
    text.press("Enter")
    opened.wait_for_selector(".notice.error")
    assert text.input_value() == "x" * (CONTEXT + 10)


@pytest.mark.page
def test_kept_runs_are_listed_shown_and_removed(opened: Any) -> None:
    write(opened, "Hello")
    ended(opened)
    opened.get_by_role("tab", name="Runs").click()
    names = opened.locator(".run-name")
    assert names.count() == 2
    names.nth(1).click()
    assert "Once upon a time" in opened.locator(".run").inner_text()
    opened.get_by_role("button", name="Remove Hello").click()
    assert names.count() == 1


@pytest.mark.page
def test_the_legend_shows_each_underline_as_tokens_have_it(opened: Any) -> None:
    lines = opened.evaluate(
        """() => {
          const line = (found) => {
            const shown = getComputedStyle(found);
            return [shown.textDecorationStyle, shown.textDecorationColor, shown.textDecorationThickness];
          };
          const token = document.querySelector("#log .token").cloneNode();
          document.querySelector("#log .tokens").append(token);
          return [...document.querySelectorAll(".marks span")].map((mark) => {
            token.className = `token ${mark.className}`;
            return { text: mark.textContent, mark: line(mark), token: line(token) };
          });
        }"""
    )
    assert [line["text"] for line in lines] == ["draft taken", "draft not taken", "forced by a grammar"]
    assert all(line["mark"] == line["token"] for line in lines)
    assert len({tuple(line["mark"]) for line in lines}) == 3
