"""Tests the view of blind votes in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from tests.cli.conftest import Run, write_model
from tests.cli.conftest import decodery as decodery
from tests.serving.live import LiveServer
from tests.serving.page.test_accessibility import SIZES, faults
from tests.serving.page.test_connection import _cut
from tests.serving.page.test_write import paced
from tests.serving.page.two_models import BYTES, MERGES

LENGTH = 20
GREEDY, DRAWN = f"max_tokens {LENGTH}, temperature 0", f"max_tokens {LENGTH}, temperature 0.8, top_p 0.95"
PROMPTS = ("Once upon a time", "Hello", "The sea")
# The draw of the order takes one byte: the first setting is A if it is even.
ORDER = """(first) => {
  const draw = crypto.getRandomValues.bind(crypto);
  const byte = first === "greedy" ? 0 : 1;
  crypto.getRandomValues = (array) => (array.byteLength === 1 ? array.fill(byte) : draw(array));
}"""


def opened_view(page: Any, url: str, *prompts: str) -> Any:
    page.goto(f"{url}/#vote")
    page.locator(".setting").nth(1).wait_for()
    page.get_by_label("Prompts, one on each line").fill("\n".join(prompts))
    page.get_by_label("Longest answer, in tokens").fill(str(LENGTH))
    return page


@pytest.fixture
def view(page: Any, server: LiveServer) -> Any:
    return opened_view(page, server.url, *PROMPTS)


def start(page: Any) -> None:
    page.get_by_role("button", name="Start").click()


def await_state(page: Any, state: str) -> Any:
    """Returns the ballot once it is in a state."""
    ballot = page.locator(f".ballot[data-state={state}]")
    ballot.wait_for()
    return ballot


def kept_votes(page: Any) -> list[dict[str, Any]]:
    """Returns the votes that the browser keeps."""
    return json.loads(page.evaluate("localStorage.getItem('decodery-votes') ?? '[]'"))  # type: ignore[no-any-return]


def vote_on_all(page: Any, keys: str) -> None:
    """Votes on one prompt after the other by keys."""
    for i, key in enumerate(keys):
        await_state(page, "voting")
        page.keyboard.press(key)
        await_state(page, "voted")
        if i + 1 < len(keys):
            page.keyboard.press("Enter")


def greedy_text(library: LLM, prompt: str) -> str:
    [output] = library.generate(prompt, GenerationParams(max_tokens=LENGTH, temperature=0))
    return output.completions[0].text


def test_by_keyboard_alone_one_votes_on_a_list_and_the_tally_counts(view: Any, library: LLM) -> None:
    view.get_by_label("Longest answer, in tokens").focus()
    while view.evaluate("document.activeElement.textContent") != "Start":
        view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    vote_on_all(view, "abx")
    votes = kept_votes(view)
    assert [one["question"] for one in votes] == list(PROMPTS)
    for one in votes:
        assert [one["settings"][side]["name"] for side in ("one", "other")] == [GREEDY, DRAWN]
        assert one["one"] == greedy_text(library, one["question"])
        params = GenerationParams(max_tokens=LENGTH, temperature=0.8, top_p=0.95)
        [drawn] = library.generate(
            one["question"], params.replace(seed=one["settings"]["other"]["params"]["seed"])
        )
        assert one["other"] == drawn.completions[0].text
    first = votes[0]["shown_first"]
    second = "other" if votes[1]["shown_first"] == "one" else "one"
    assert [one["vote"] for one in votes] == [first, second, "both_bad"]
    wins = [sum(one["vote"] == side for one in votes) for side in ("one", "other")]
    assert view.locator(".tally tbody td:nth-child(2)").all_inner_texts() == list(map(str, wins))
    assert view.locator(".tally caption").inner_text() == "3 votes: 2 decided, 0 ties, 1 both bad"
    assert "Answer A, which is shown first, won 1 of 2: 50.0\u00a0%" in view.locator(".tally p").inner_text()
    assert "That was the last prompt." in view.locator(".vote-status").inner_text()


def ballot_without_texts(page: Any) -> tuple[str, list[str]]:
    """Returns the ballot's markup without the texts of the answers, and the texts."""
    texts = page.locator(".vote-text").all_text_contents()
    page.locator(".vote-text").evaluate_all("(all) => all.forEach((one) => (one.textContent = ''))")
    return page.locator(".ballot").evaluate("(e) => e.outerHTML"), texts


@pytest.mark.page
def test_before_the_vote_the_two_orders_differ_in_nothing_but_the_texts(
    context: Any, server: LiveServer, library: LLM
) -> None:
    found = {}
    for first in ("greedy", "drawn"):
        page = opened_view(context.new_page(), server.url, PROMPTS[0])
        page.evaluate(ORDER, first)
        start(page)
        await_state(page, "voting")
        assert GREEDY not in page.locator(".ballot").evaluate("(e) => e.outerHTML")
        found[first] = ballot_without_texts(page)
        page.keyboard.press("a")
        headers = await_state(page, "voted").locator(".answer header").all_inner_texts()
        assert ["temperature 0 " in one.replace("\n", " ") for one in headers] == [
            first == "greedy",
            first != "greedy",
        ]
        [kept] = kept_votes(page)[-1:]
        assert kept["vote"] == kept["shown_first"] == ("one" if first == "greedy" else "other")
        page.close()
    (one, texts), (other, swapped) = found["greedy"], found["drawn"]
    assert one == other
    assert texts[0] == swapped[1] == greedy_text(library, PROMPTS[0])
    assert texts[0] != texts[1]


@pytest.mark.page
def test_the_order_is_drawn_anew_for_each_prompt(view: Any) -> None:
    view.get_by_label("Prompts, one on each line").fill("\n".join(["Hello"] * 24))
    view.get_by_label("Longest answer, in tokens").fill("2")
    start(view)
    vote_on_all(view, "t" * 24)
    assert {one["shown_first"] for one in kept_votes(view)} == {"one", "other"}
    # Each drawn answer has a seed of its own.
    assert len({one["settings"]["other"]["params"]["seed"] for one in kept_votes(view)}) == 24


@pytest.mark.page
@pytest.mark.parametrize("held", [GREEDY, DRAWN])
def test_neither_answer_is_shown_before_both_have_ended(
    direct_page: Any, server: LiveServer, held: str
) -> None:
    page = opened_view(direct_page, server.url, PROMPTS[0])
    waiting: list[Any] = []
    temperature = 0 if held == GREEDY else 0.8

    def hold(route: Any) -> None:
        asked = json.loads(route.request.post_data)["requests"][0]["params"]["temperature"]
        if asked == temperature:
            waiting.append(route)
        else:
            route.continue_()

    page.route("**/trace", hold)
    with page.expect_response("**/trace") as other:
        start(page)
    other.value.finished()
    page.wait_for_timeout(200)
    assert len(waiting) == 1
    assert page.locator(".answer").count() == 0
    assert page.locator(".choices button").count() == 0
    before = page.locator(".ballot").evaluate("(e) => e.outerHTML")
    assert "being written" in before
    waiting[0].continue_()
    await_state(page, "voting")


@pytest.mark.page
def test_no_other_part_of_the_page_lists_the_answers_before_the_vote(view: Any, server: LiveServer) -> None:
    view.goto(f"{server.url}/#write")
    view.locator(".run[data-state=done]").wait_for()
    view.get_by_role("tab", name="Runs").click()
    runs = view.locator(".run-name").count()
    view.goto(f"{server.url}/#vote")
    start(view)
    await_state(view, "voting")
    view.goto(f"{server.url}/#write")
    assert view.locator(".run-name").count() == runs
    view.goto(f"{server.url}/#vote")
    view.get_by_role("button", name="Tie").click()
    await_state(view, "voted")
    text = view.locator(".vote-text").nth(1).text_content()
    view.get_by_role("button", name="Look at the tokens of B").click()
    view.locator("#view-write .run[data-state=done]").wait_for()
    shown = "".join(view.locator("#view-write .run .token").all_text_contents())
    # The tokens show special ones, which the text leaves out.
    assert re.sub(r"<\|\w+\|>", "", shown).startswith(text.rstrip("\ufffd")[:5])
    assert view.locator(".run-name").count() == runs + 1


@pytest.mark.page
def test_keys_vote_in_the_ballot_alone_and_once(view: Any) -> None:
    start(view)
    await_state(view, "voting")
    view.keyboard.press("Control+b")
    view.locator("#view-vote summary").first.click()
    view.get_by_label("Longest answer, in tokens").focus()
    view.keyboard.press("b")
    view.get_by_label("Prompts, one on each line").press("t")
    await_state(view, "voting")
    assert kept_votes(view) == []
    view.locator(".ballot h3").focus()
    view.keyboard.press("t")
    view.keyboard.press("t")
    await_state(view, "voted")
    assert len(kept_votes(view)) == 1


@pytest.mark.page
def test_a_reload_keeps_the_tally_and_clearing_asks_first(view: Any) -> None:
    start(view)
    vote_on_all(view, "aab")
    told = view.locator(".tallies").inner_text()
    view.reload()
    view.locator(".tally").wait_for()
    assert view.locator(".tallies").inner_text() == told
    view.get_by_role("button", name="Clear the tally").click()
    view.get_by_role("button", name="Keep them").click()
    assert len(kept_votes(view)) == 3
    view.get_by_role("button", name="Clear the tally").click()
    view.get_by_role("button", name="Remove all votes").click()
    assert view.locator(".tally").count() == 0
    assert kept_votes(view) == []
    assert view.get_by_role("button", name="Save the votes").is_disabled()


@pytest.mark.page
def test_votes_that_the_browser_has_no_room_for_are_told_and_counted(view: Any) -> None:
    view.evaluate(
        """() => {
          Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
        }"""
    )
    start(view)
    vote_on_all(view, "ab")
    notice = view.locator(".notice.error", has_text="no room for more votes")
    assert notice.count() == 1
    assert view.locator(".tally caption").inner_text().startswith("2 votes")


def saved(page: Any, folder: Path) -> Path:
    """Saves the votes, and returns the file."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the votes").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.page
def test_a_judge_reads_the_saved_votes_and_its_agreement_is_told(
    view: Any, tmp_path: Path, decodery: Run
) -> None:
    start(view)
    vote_on_all(view, "abt")
    path = saved(view, tmp_path)
    assert path.name == "decodery-votes.jsonl"
    (tmp_path / "judge").mkdir()
    judge = write_model(tmp_path / "judge", context=2048)
    ran = decodery("eval", "judge", "--votes", str(path), "--judge", judge, "--no-reasons", "--json")
    assert ran.status == 0, ran.err
    [pair] = ran.json["pairs"]
    assert (pair["one"], pair["other"]) == (f"{GREEDY} (tiny)", f"{DRAWN} (tiny)")
    assert pair["votes"] == {"people": {one["id"]: one["vote"] for one in kept_votes(view)}}
    assert pair["agreement"][0]["voters"] == [judge, "people"]
    assert pair["agreement"][0]["kappa"]["counted"] == 3


@pytest.mark.page
def test_saved_votes_are_opened_in_another_browser_and_no_vote_counts_twice(
    view: Any, browser: Any, server: LiveServer, tmp_path: Path, watch: Any
) -> None:
    start(view)
    vote_on_all(view, "abt")
    path = saved(view, tmp_path)
    context = browser.new_context()
    page = context.new_page()
    watch.listen(page)
    opened_view(page, server.url)
    for message in ("3 votes came from", "0 votes came from “decodery-votes.jsonl”; 3 were here already"):
        page.get_by_label("Files of votes").set_input_files(path)
        page.locator("#view-vote [role=status]", has_text=message).wait_for()
    assert page.locator(".tallies").inner_text() == view.locator(".tallies").inner_text()
    context.close()


@pytest.mark.page
def test_markup_in_votes_prompts_and_answers_is_shown_as_text(view: Any, tmp_path: Path) -> None:
    markup = "<img src=x onerror=alert(1)>\u202e"
    setting = {"name": markup, "model": markup, "params": {}}
    row = {
        **{"id": "1", "question": markup, "one": markup, "other": markup, "vote": "one"},
        **{"shown_first": "one", "settings": {"one": setting, "other": {**setting, "name": "z"}}},
    }
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    view.get_by_label("Files of votes").set_input_files(path)
    view.locator(".tally").wait_for()
    assert markup in view.locator(".tally tbody th").first.text_content()
    view.get_by_label("Prompts, one on each line").fill(markup)
    start(view)
    await_state(view, "voting")
    assert view.locator(".vote-prompt").text_content() == markup
    assert view.locator("main img").count() == 0
    path.write_text("hello", encoding="utf-8")
    view.get_by_label("Files of votes").set_input_files(path)
    view.locator(".notice.error", has_text="line 1 is not JSON").wait_for()


@pytest.mark.page
def test_a_server_that_goes_away_leaves_the_prompt_without_a_vote_and_can_be_asked_again(
    view: Any, watch: Any
) -> None:
    watch.allowed = ["Failed to load resource", "net::ERR"]
    view.context.set_offline(True)
    start(view)
    ballot = await_state(view, "failed")
    assert "cannot be reached. This prompt has no vote." in ballot.inner_text()
    view.context.set_offline(False)
    view.wait_for_selector(".notice:not(.error)")
    view.get_by_role("button", name="Try again").click()
    ballot = await_state(view, "voting")
    assert PROMPTS[0] in ballot.inner_text()
    view.keyboard.press("t")
    await_state(view, "voted")
    assert [one["question"] for one in kept_votes(view)] == [PROMPTS[0]]


@pytest.mark.page
def test_answers_that_are_cut_have_no_vote(view: Any, server: LiveServer, watch: Any) -> None:
    watch.allowed = ["ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION", "ERR_EMPTY", "Failed to load"]
    view.get_by_label("Longest answer, in tokens").fill("400")
    with paced(server, 0.02):
        with view.expect_response("**/trace"):
            start(view)
        # The server ends all streams, as when it goes down.
        server.awaited(_cut, server)
        ballot = await_state(view, "failed")
    assert "This prompt has no vote." in ballot.inner_text()
    assert ballot.locator(".answer").count() == 0
    view.get_by_role("button", name="Next prompt").click()
    view.get_by_role("button", name="Stop").click()
    await_state(view, "ended")
    assert kept_votes(view) == []
    server.settle()


@pytest.mark.page
def test_an_answer_that_ends_early_has_no_vote(direct_page: Any, server: LiveServer) -> None:
    view = opened_view(direct_page, server.url, PROMPTS[0])

    def shorten(route: Any) -> None:
        answer = route.fetch()
        lines = answer.text().split("\n\n")
        route.fulfill(response=answer, body="\n\n".join(lines[: len(lines) // 2]) + "\n\n")

    view.route("**/trace", shorten)
    start(view)
    ballot = await_state(view, "failed")
    assert "The server ended the answer early. This prompt has no vote." in ballot.inner_text()
    assert ballot.locator(".answer").count() == 0


@pytest.mark.page
def test_a_wrong_parameter_is_told_at_its_setting(view: Any, watch: Any) -> None:
    watch.allowed.append("400")
    other = view.get_by_role("region", name="The other setting")
    other.locator("summary").click()
    other.get_by_label("top_p", exact=True).fill("3")
    start(view)
    ballot = await_state(view, "failed")
    assert "The other setting gave no answer" in ballot.inner_text()
    view.locator("#view-vote summary").first.click()
    assert "top_p" in other.locator("> .wrong").inner_text()


@pytest.mark.page
def test_what_cannot_be_voted_on_is_said_before_anything_is_asked(view: Any, tmp_path: Path) -> None:
    wrong = view.locator("form > .wrong")
    view.get_by_label("Prompts, one on each line").fill(" \n\n")
    start(view)
    assert "Write a prompt first" in wrong.inner_text()
    path = tmp_path / "prompts.txt"
    path.write_text("One\r\n\r\n  Two \n", encoding="utf-8")
    view.get_by_label("A list of prompts").set_input_files(path)
    view.get_by_role("region", name="The other setting").get_by_label("Preset").select_option("precise")
    start(view)
    assert "Both settings are the same" in wrong.inner_text()
    view.get_by_role("region", name="The other setting").get_by_label("Preset").select_option("creative")
    start(view)
    await_state(view, "voting")
    assert wrong.is_hidden()
    assert view.locator(".ballot h3").inner_text() == "Prompt 1 of 2"
    view.get_by_role("button", name="No vote on these").click()
    view.locator(".vote-prompt", has_text="Two").wait_for()
    await_state(view, "voting")
    view.get_by_role("button", name="No vote on these").click()
    assert "These were all prompts." in await_state(view, "ended").inner_text()
    assert kept_votes(view) == []


@pytest.mark.page
def test_the_first_two_columns_of_a_comparison_are_voted_on(page: Any, two_models: LiveServer) -> None:
    page.goto(f"{two_models.url}/#compare")
    page.locator(".column").nth(1).wait_for()
    page.get_by_label("Prompt for all columns").fill("One\ntwo")
    page.get_by_label("Longest text, in tokens").fill("9")
    second = page.get_by_role("region", name="Column B")
    second.get_by_label("Preset").select_option("creative")
    second.get_by_label("Model").select_option(MERGES)
    page.get_by_role("button", name="Vote blind on A and B").click()
    page.locator("#view-vote .setting").nth(1).wait_for()
    # A prompt is one line.
    page.wait_for_function("document.querySelector('#vote-prompts').value === 'One two'")
    start(page)
    vote_on_all(page, "t")
    [kept] = kept_votes(page)
    settings = sorted(kept["settings"].values(), key=lambda one: one["model"])
    assert [one["model"] for one in settings] == [BYTES, MERGES]
    assert [one["name"] for one in settings] == [
        "max_tokens 9, temperature 0",
        "max_tokens 9, min_p 0.05, temperature 1.2",
    ]
    assert (kept["question"], settings[0]["params"]["max_tokens"]) == ("One two", 9)


@pytest.mark.page
def test_two_models_answer_messages_in_their_own_templates(
    page: Any, two_models: LiveServer, library: LLM, merging: LLM
) -> None:
    view = opened_view(page, two_models.url, "Hi")
    sent: dict[str, Any] = {}
    view.on(
        "request",
        lambda r: sent.update({r.post_data_json["model"]: r.post_data_json}) if "/trace" in r.url else None,
    )
    other = view.get_by_role("region", name="The other setting")
    other.get_by_label("Preset").select_option("precise")
    other.get_by_label("Model").select_option(MERGES)
    view.get_by_label("They are").select_option("chat")
    start(view)
    await_state(view, "voting")
    messages = [{"role": "user", "content": "Hi"}]
    asked = {model: body["requests"][0]["prompt"] for model, body in sent.items()}
    assert asked == {BYTES: library.chat_prompt(messages), MERGES: merging.chat_prompt(messages)}
    view.keyboard.press("t")
    await_state(view, "voted")
    [kept] = kept_votes(view)
    assert kept["chat"] is True
    assert [kept["settings"][side]["model"] for side in ("one", "other")] == [BYTES, MERGES]


@pytest.mark.page
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_of_a_vote_has_a_fault_or_is_wider_than_the_screen(
    page: Any, server: LiveServer, scheme: str, size: str
) -> None:
    width, height = SIZES[size]
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    view = opened_view(page, server.url, "Hello " + "x" * 300, "Bye")

    def check() -> None:
        assert faults(view) == []
        inner = "document.querySelector('#view-vote').scrollWidth"
        assert view.evaluate(f"Math.max(document.documentElement.scrollWidth, {inner})") <= width

    small = view.evaluate("""() => [...document.querySelectorAll("#view-vote :is(input, select, textarea)")]
      .filter((one) => parseFloat(getComputedStyle(one).fontSize) < 16).map((one) => one.id)""")
    assert small == []
    start(view)
    await_state(view, "voting")
    check()
    view.get_by_role("button", name="B is better").click()
    await_state(view, "voted")
    view.get_by_role("button", name="Clear the tally").click()
    check()
