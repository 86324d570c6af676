"""Tests conversations of the page: each reply goes to the conversation that asked for it."""

from __future__ import annotations

from typing import Any

import pytest

from decodery import LLM
from tests.serving.live import LiveServer, until
from tests.serving.page.branching import branch, ended, kept, other_candidate, run_of
from tests.serving.page.test_write import paced, set_parameter, write

Message = dict[str, str]
_SHOWN = "[...document.querySelectorAll('.message .body, .run .tokens')].map((e) => e.textContent)"


class Chat:
    """Drives the chat of a page, and notes the messages that each question sends."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[list[Message]] = []
        page.on("request", self._note)
        page.get_by_label("Chat").check()
        set_parameter(page, "max_tokens", "8")
        set_parameter(page, "ignore_eos", "true")

    def _note(self, request: Any) -> None:
        if request.url.endswith("/tokenize") and "messages" in (request.post_data or ""):
            self.asked.append(request.post_data_json["messages"])

    def send(self, text: str) -> None:
        """Sends a message, and waits for its reply to begin."""
        before = self.page.locator(".run").count()
        self.page.get_by_role("textbox", name="Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f".run >> nth={before}")

    def ended(self, replies: int = 1) -> None:
        """Waits until so many replies are shown and have ended."""
        ended(self.page, replies)

    def open_kept(self, title: str) -> None:
        """Opens a run of the list."""
        self.page.get_by_role("tab", name="Runs").click()
        self.page.locator(".run-name", has_text=title).first.click()

    def shown(self) -> list[str]:
        """Returns the texts that are shown, in order."""
        found: list[str] = self.page.evaluate(_SHOWN)
        return found


@pytest.fixture
def chat(opened: Any) -> Chat:
    """Returns the chat of a page that has decoded its first text."""
    return Chat(opened)


def user(text: str) -> Message:
    """Returns the message of a user."""
    return {"role": "user", "content": text}


def test_a_new_chat_while_a_reply_is_written_gets_nothing_of_it(chat: Chat, server: LiveServer) -> None:
    set_parameter(chat.page, "max_tokens", "300")
    with paced(server, 0.02):
        chat.send("first")
        chat.page.wait_for_selector(".run .token >> nth=3")
        chat.page.get_by_role("button", name="New chat").click()
        until(server.is_idle)
    set_parameter(chat.page, "max_tokens", "8")
    chat.send("second")
    chat.ended()
    assert chat.asked == [[user("first")], [user("second")]]


@pytest.mark.page
def test_a_new_chat_before_the_first_token_of_a_reply_is_empty(chat: Chat, server: LiveServer) -> None:
    with paced(server, 0.5):
        chat.send("first")
        chat.page.get_by_role("button", name="New chat").click()
        until(server.is_idle)
    assert chat.shown() == []
    assert chat.page.locator(".notice.error").count() == 0
    assert chat.page.get_by_role("textbox", name="Message", exact=True).input_value() == ""
    chat.send("second")
    chat.ended()
    assert chat.asked[-1] == [user("second")]


@pytest.mark.page
def test_a_reply_stays_out_of_the_kept_chat_that_was_opened_meanwhile(chat: Chat, server: LiveServer) -> None:
    chat.send("alpha")
    chat.ended()
    [_, alpha] = chat.shown()
    chat.page.get_by_role("button", name="New chat").click()
    with paced(server, 0.05):
        chat.send("beta")
        beta = chat.page.locator(".run").get_attribute("data-run")
        chat.open_kept("alpha")
        assert chat.shown()[0] == "alpha"
        kept(chat.page, beta, 8)
    chat.send("gamma")
    chat.ended(2)
    assert chat.asked[-1] == [user("alpha"), {"role": "assistant", "content": alpha}, user("gamma")]
    # The other reply has its own conversation.
    chat.open_kept("beta")
    chat.ended()
    assert chat.shown()[0] == "beta"


@pytest.mark.page
def test_a_chat_that_is_left_and_shown_again_still_shows_its_reply_and_takes_no_second_question(
    chat: Chat, server: LiveServer
) -> None:
    page = chat.page
    stop = page.get_by_role("button", name="Stop", exact=True)
    set_parameter(page, "max_tokens", "100")
    with paced(server, 0.1):
        chat.send("alpha")
        page.wait_for_selector(".run .token >> nth=1")
        for leave in (lambda: page.get_by_label("Completion").check(), lambda: chat.open_kept("Once upon")):
            leave()
            page.get_by_label("Chat").check()
            assert page.locator(".run").count() == 1
            assert stop.is_visible()
            page.get_by_role("textbox", name="Message", exact=True).fill("too early")
            page.keyboard.press("Enter")
            assert chat.shown()[0] == "alpha"
        # A reply that is opened from the list while it runs is shown as one, too.
        chat.open_kept("Once upon")
        chat.open_kept("alpha")
        assert page.get_by_label("Chat").is_checked()
        assert stop.is_visible()
        chat.ended()
    assert len(chat.asked) == 1
    assert len(chat.shown()) == 2


@pytest.mark.page
def test_a_branch_of_a_reply_stays_in_the_chat_which_goes_on_from_it(chat: Chat, library: LLM) -> None:
    chat.send("alpha")
    chat.ended()
    reply = run_of(chat.page)
    other = branch(chat.page, 3, other_candidate(reply, 3))
    assert chat.page.get_by_label("Chat").is_checked()
    assert chat.shown()[0] == "alpha"
    assert other["tokens"][:3] == reply["tokens"][:3]
    chat.send("beta")
    chat.ended(2)
    assert chat.asked[-1] == [user("alpha"), {"role": "assistant", "content": other["text"]}, user("beta")]


@pytest.mark.page
def test_steps_from_a_token_of_a_reply_stay_in_the_chat_which_goes_on_from_them(chat: Chat) -> None:
    page = chat.page
    for turn, text in enumerate(("alpha", "beta")):
        chat.send(text)
        chat.ended(turn + 1)
    before = chat.shown()
    page.locator(".run").last.locator('[data-i="3"]').click()
    page.get_by_role("button", name="One at a time from here").click()
    steps = page.get_by_role("region", name="One token at a time")
    for count in (4, 5):
        steps.get_by_role("button", name="Take the drawn one").click()
        page.locator(".run").last.locator(f'[data-i="{count - 1}"]').wait_for()
        steps.locator(".candidate").first.wait_for()
    assert page.get_by_label("Chat").is_checked()
    reply = chat.shown()[3]
    assert chat.shown() == [*before[:3], reply]
    assert before[3].startswith(reply)
    steps.get_by_role("button", name="Close").click()
    chat.send("gamma")
    chat.ended(3)
    assert [message["content"] for message in chat.asked[-1]] == [*before[:3], reply, "gamma"]


@pytest.mark.page
def test_a_text_that_is_left_for_the_chat_is_stopped_in_the_list_of_runs(
    opened: Any, server: LiveServer
) -> None:
    set_parameter(opened, "max_tokens", "900")
    set_parameter(opened, "ignore_eos", "true")
    with paced(server, 0.02):
        write(opened, "A long text")
        opened.wait_for_selector(".run .token >> nth=3")
        opened.get_by_label("Chat").check()
        opened.get_by_role("tab", name="Runs").click()
        stop = opened.get_by_role("button", name="Stop A long text")
        stop.click()
        stop.wait_for(state="detached")
        until(server.is_idle)
    opened.locator(".run-name", has_text="A long text").click()
    opened.wait_for_selector(".run[data-state=cut]")


@pytest.mark.page
def test_write_on_at_the_end_of_a_text_of_the_default_length_writes_as_many_again(opened: Any) -> None:
    opened.get_by_role("tab", name="Parameters").click()
    opened.get_by_role("button", name="max_tokens: back to the default").click()
    set_parameter(opened, "ignore_eos", "true")
    shown = opened.locator(".run").get_attribute("data-run")
    opened.get_by_role("button", name="Write", exact=True).click()
    opened.wait_for_selector(f'.run[data-state=done]:not([data-run="{shown}"])')
    before = run_of(opened)
    assert (len(before["tokens"]), before["finish"]) == (256, "length")
    opened.locator("#log .token").last.click()
    opened.get_by_role("button", name="Write on at the end").click()
    opened.wait_for_selector(f'.run[data-state=done]:not([data-run="{before["id"]}"])')
    after = run_of(opened)
    assert (len(after["tokens"]), after["tokens"][:256]) == (512, before["tokens"])
